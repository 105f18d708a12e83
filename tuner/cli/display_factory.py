"""Choosing how a run is shown, and showing what the program logs in it."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from tuner.display import Display


@contextmanager
def display_of_run(*, with_summary: bool, debug: bool) -> Iterator[Display]:
    """Show a run on standard error, redrawn on a terminal, and its summary on standard output.

    Args:
        with_summary: Whether the summary is printed.
        debug: Whether tracebacks of experiments that fail are shown, which are in their log files anyway.
    """
    from tuner.display.live import LiveDisplay
    from tuner.display.plain import ProgressDisplay
    from tuner.display.terminal import console_on, forgiving, is_terminal

    summary_console = console_on(forgiving(sys.stdout)) if with_summary else None
    kind = LiveDisplay if is_terminal(sys.stderr) else ProgressDisplay
    display = kind(sys.stderr, summary_console)
    try:
        with logged_as_notes(display, debug=debug):
            yield display
    finally:
        display.close()


@contextmanager
def logged_as_notes(display: Display, *, debug: bool) -> Iterator[None]:
    """Show what the program logs, from warnings up, as notes.

    Args:
        display: Who shows them.
        debug: Whether tracebacks are among them.
    """
    handler = _Notes(display, debug)
    loggers = [logging.getLogger(package) for package in ("tuner", "studies", "search_spaces")]
    for logger in loggers:
        logger.addHandler(handler)
    # A log file on a full disk: the error itself is told, its echo in the logging is not.
    complains, logging.raiseExceptions = logging.raiseExceptions, debug
    try:
        yield
    finally:
        logging.raiseExceptions = complains
        for logger in loggers:
            logger.removeHandler(handler)


class _Notes(logging.Handler):
    """Shows logged warnings as notes; errors of experiments are told when they end."""

    def __init__(self, display: Display, debug: bool) -> None:
        super().__init__(logging.WARNING)
        self._display = display
        self._debug = debug

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is None:
            self._display.note(record.getMessage())
        elif self._debug:
            self._display.note("".join(traceback.format_exception(*record.exc_info)).rstrip())
