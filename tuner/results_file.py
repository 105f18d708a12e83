"""Where results are written: checked before the work, not after it; and named after the time."""

from __future__ import annotations

import os
import time
from pathlib import Path

from search_spaces import ConfigurationError
from studies import default_results_name


def check_results_path(path: str | None) -> None:
    """Refuse a results file that could not be written in the end; None means the default name.

    Raises:
        ConfigurationError: It is a folder, or its folder is missing or cannot be written.
    """
    folder = Path(path or default_results_name("")).absolute().parent
    if path is not None and Path(path).is_dir():
        raise ConfigurationError(f"results file {path}: this is a folder; name a file")
    if not folder.is_dir():
        raise ConfigurationError(f"results file {path}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"results file: nothing can be written in {folder}; choose another --results-file")


def timestamp() -> str:
    """Return the time as results files have it."""
    return time.strftime("%Y%m%d_%H%M%S")
