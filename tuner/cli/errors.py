"""Messages and exit codes for errors and stopped commands."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.cli.options import DEFAULT_OUTPUT_DIR, STORAGE_VARIABLE
from tuner.cli.parser import UsageError

if TYPE_CHECKING:
    from search_spaces.errors import ProblemCollector

SUCCESS = 0
FAILED = 1
INVALID_INPUT = 2
BROKEN_PIPE = 141  # the code that shells report for a program whose output pipe was closed


def problems_of(error: Exception, options: argparse.Namespace | None = None) -> Sequence[str]:
    """Return a message for each problem behind an error that the user can fix; none for an unexpected error.

    Args:
        error: Any error.
        options: The command's options, which select the study; None if the command line is invalid.
    """
    from search_spaces.errors import known_problems

    if isinstance(error, UsageError):
        return error.problems
    return known_problems(error) or _disk_problems(error, options) or _storage_problems(error, options)


def collector(options: argparse.Namespace) -> ProblemCollector:
    """Return a problem collector that also collects disk and storage errors."""
    from search_spaces.errors import ProblemCollector

    return ProblemCollector(lambda error: problems_of(error, options))


def print_message(text: str) -> None:
    """Write text to standard error with control sequences escaped; ignore a closed pipe."""
    if not text.isprintable():
        from tuner.display.terminal import printable

        text = printable(text, kept="\n")
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def report_problems(problems: Sequence[str], options: argparse.Namespace | None = None, *, hint: str = "") -> int:
    """Write problems, and the help command `hint`, to standard error; return the exit code for invalid input."""
    for problem in problems:
        print_message(f"error: {' '.join(line.strip() for line in problem.splitlines())}")
    if len(problems) > 1:
        print_message(f"{len(problems)} problems")
    if _storage_comes_from_environment(problems, options):
        print_message(f"the storage URL comes from the environment variable {STORAGE_VARIABLE}")
    if hint:
        print_message(f"see: {hint}")
    return INVALID_INPUT


def report_error(error: Exception, options: argparse.Namespace | None = None) -> int:
    """Write an error to standard error; return exit code 1 for an unexpected error or a failed preset, else 2."""
    from search_spaces import ExperimentFailedError

    debug = options is not None and options.debug
    if debug:
        print_message("".join(traceback.format_exception(error)).rstrip())
    if problems := problems_of(error, options):
        code = report_problems(problems, options, hint=error.hint if isinstance(error, UsageError) else "")
        return FAILED if isinstance(error, ExperimentFailedError) else code
    text = " ".join(line.strip() for line in str(error).splitlines())
    print_message(f"error: unexpected {type(error).__name__}{f': {text}' if text else ''}")
    if not debug:
        print_message("run the command again with --debug to see the traceback")
    return FAILED


def stop_message(options: argparse.Namespace | None) -> str:
    """Return the message for a command that a signal stopped, with the way to continue."""
    command = None if options is None else options.command
    if command in ("run", "resume", "worker", "confirm", "import"):
        return "stopped; run the same command again to resume"
    if options is not None and command == "stop" and options.stop_requested:
        return "stopped waiting; the trials still stop after their current epoch"
    if command == "enqueue":
        status = _study_command("status", options)
        return f"stopped; trials may have been added: check `{status}` before you run `enqueue` again"
    # The same command would add trials again.
    return f"stopped; run `{_study_command('resume', options)}` to continue" if command == "search" else "stopped"


def _study_command(name: str, options: argparse.Namespace | None) -> str:
    # `tuner.display.lines.study_command` would import modules whose import the signal may have interrupted.
    output_dir = getattr(options, "output_dir", DEFAULT_OUTPUT_DIR)
    folder = "" if output_dir == DEFAULT_OUTPUT_DIR else f" --output-dir {shlex.quote(output_dir)}"
    return f"khmer-tuner {name}{folder}"


def _disk_problems(error: Exception, options: argparse.Namespace | None) -> tuple[str, ...]:
    from search_spaces.diagnostics.disk import disk_error_text, is_disk_error

    if not isinstance(error, OSError) or not is_disk_error(error):
        return ()
    # An error while writing to an open file does not name the file, which is most likely in the output folder.
    where = os.path.abspath(getattr(options, "output_dir", os.getcwd()))
    return (f"{disk_error_text(error, where)}, then run the command again",)


def _storage_problems(error: Exception, options: argparse.Namespace | None) -> tuple[str, ...]:
    from studies import storage_error_text

    return tuple(filter(None, [storage_error_text(error, _storage_url(options))]))


def _storage_url(options: argparse.Namespace | None) -> str:
    from search_spaces import ConfigurationError
    from studies import OutputFolder, default_storage_url

    output_dir = getattr(options, "output_dir", ".")
    url = getattr(options, "storage", None)
    with contextlib.suppress(ConfigurationError):  # the owner file cannot be read
        folder = OutputFolder(output_dir)
        if url is None and (owner := folder.owner()) is not None:
            url = folder.storage_url(owner)
    return url or default_storage_url(output_dir)


def _storage_comes_from_environment(problems: Sequence[str], options: argparse.Namespace | None) -> bool:
    url = getattr(options, "storage", None)
    return bool(url) and url == os.environ.get(STORAGE_VARIABLE) and any("storage" in text for text in problems)
