"""Where results are written: checked before the work, not after it; and named after the time."""

from __future__ import annotations

import os
import time
from pathlib import Path

from search_spaces import ConfigurationError
from search_spaces.diagnostics.names import path_problem
from studies import default_results_name


def check_results_path(path: str | None) -> None:
    """Refuse a results file that could not be written in the end; None means the default name.

    Raises:
        ConfigurationError: It is a folder, or its folder is missing or cannot be written.
    """
    problem = output_file_problem(Path(path or default_results_name("")))
    if problem is not None:
        raise ConfigurationError(f"results file {path or 'here'}: {problem}")


def output_file_problem(path: Path) -> str | None:
    """Say why no file can be written to a path, and what to do, or return None; nothing is created."""
    folder = path.absolute().parent
    problem = path_problem(path)
    if problem is not None:
        return f"{problem}; name another file"
    if os.path.isdir(path):
        return "this is a folder; name a file"
    if os.path.exists(path) and not os.path.isfile(path):  # a file that takes its place would be the end of it
        return "this is a device or a pipe; name a file"
    if not os.path.isdir(folder):
        return f"there is no folder {folder}; create it first"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"nothing can be written in {folder}; choose another place"
    return None


def timestamp() -> str:
    """Return the time as results files have it."""
    return time.strftime("%Y%m%d_%H%M%S")
