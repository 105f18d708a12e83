"""The one place where errors become messages and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.cli.options import STORAGE_VARIABLE
from tuner.cli.parser import UsageError

if TYPE_CHECKING:
    from search_spaces.diagnostics.problem_collector import ProblemCollector

SUCCESS = 0
FAILED = 1
INVALID_INPUT = 2
BROKEN_PIPE = 141  # what shells report of a program whose output pipe was closed


def problems_of(error: Exception, options: argparse.Namespace | None = None) -> Sequence[str]:
    """Return the problems that an error reports, one text each; none if it is not one that a user can fix.

    Args:
        error: Any error.
        options: The command's options; they tell where the study is.
    """
    from search_spaces.diagnostics.problem_collector import known_problems

    if isinstance(error, UsageError):
        return error.problems
    return known_problems(error) or _disk_problems(error, options) or _storage_problems(error, options)


def collector(options: argparse.Namespace) -> ProblemCollector:
    """Return a collector that also knows the errors of disks and storages."""
    from search_spaces.diagnostics.problem_collector import ProblemCollector

    return ProblemCollector(lambda error: problems_of(error, options))


def tell(text: str) -> None:
    """Write text to standard error, its control sequences escaped; a closed pipe is ignored."""
    if not text.isprintable():
        from tuner.display.terminal import printable

        text = printable(text, kept="\n")
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def report_problems(problems: Sequence[str], options: argparse.Namespace | None = None, *, hint: str = "") -> int:
    """Write problems to standard error; return the exit code for bad input."""
    for problem in problems:
        tell(f"error: {' '.join(line.strip() for line in problem.splitlines())}")
    if len(problems) > 1:
        tell(f"{len(problems)} problems")
    if _storage_comes_from_environment(problems, options):
        tell(f"the storage URL comes from the environment variable {STORAGE_VARIABLE}")
    if hint:
        tell(f"see: {hint}")
    return INVALID_INPUT


def report_error(error: Exception, options: argparse.Namespace | None = None) -> int:
    """Write an error to standard error; return the exit code: 2 if a user can fix it, 1 if not or if trials failed."""
    from search_spaces import ExperimentFailedError

    debug = options is not None and options.debug
    if debug:
        tell("".join(traceback.format_exception(error)).rstrip())
    if problems := problems_of(error, options):
        code = report_problems(problems, options, hint=error.hint if isinstance(error, UsageError) else "")
        return FAILED if isinstance(error, ExperimentFailedError) else code
    text = " ".join(line.strip() for line in str(error).splitlines())
    tell(f"error: unexpected {type(error).__name__}{f': {text}' if text else ''}")
    if not debug:
        tell("repeat the command with --debug for the traceback")
    return FAILED


def resume_hint(options: argparse.Namespace | None) -> str:
    """Return how to continue after an interruption."""
    command = None if options is None else options.command
    if command in ("run", "resume", "worker", "confirm"):
        return "stopped; the same command goes on where it left"
    if options is not None and command == "stop" and options.is_asked:
        return "waits no longer; the trials still stop after their epoch"
    if command == "enqueue":
        return "stopped; what was added stays: look with `khmer-tuner status` before you repeat it"
    # Repeated, it would add trials once more.
    return "stopped; `khmer-tuner resume` goes on where it left" if command == "search" else "stopped"


def _disk_problems(error: Exception, options: argparse.Namespace | None) -> tuple[str, ...]:
    from search_spaces.diagnostics.disk_errors import disk_error_text, is_disk_error

    if not isinstance(error, OSError) or not is_disk_error(error):
        return ()
    # A write to an open file does not say which; what a command writes is in its folder.
    where = os.path.abspath(getattr(options, "output_dir", os.getcwd()))
    return (f"{disk_error_text(error, where)}, then repeat the command",)


def _storage_problems(error: Exception, options: argparse.Namespace | None) -> tuple[str, ...]:
    from studies import storage_error_text

    return tuple(filter(None, [storage_error_text(error, _storage_of(options))]))


def _storage_of(options: argparse.Namespace | None) -> str:
    from search_spaces import ConfigurationError
    from studies import OutputFolder, default_storage_url

    output_dir = getattr(options, "output_dir", ".")
    used = getattr(options, "storage", None)
    with contextlib.suppress(ConfigurationError):  # the owner file cannot be read
        folder = OutputFolder(output_dir)
        if used is None and (owner := folder.owner()) is not None:
            used = folder.storage_url(owner)
    return used or default_storage_url(output_dir)


def _storage_comes_from_environment(problems: Sequence[str], options: argparse.Namespace | None) -> bool:
    used = getattr(options, "storage", None)
    return bool(used) and used == os.environ.get(STORAGE_VARIABLE) and any("storage" in text for text in problems)
