"""The progress display of a command, which also shows logged warnings."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from tuner.display.events import Display


@contextmanager
def open_display(*, with_summary: bool, debug: bool) -> Iterator[Display]:
    """Open a display on standard error for the ``with`` block: live on a terminal, otherwise plain lines.

    Args:
        with_summary: Whether to print the summary of the run to standard output.
        debug: Whether to show the tracebacks of failed trials, which their log files contain in any case.
    """
    from tuner.display.displays import LiveDisplay, ProgressDisplay
    from tuner.display.terminal import console_on, ignoring_write_errors, is_terminal

    summary_console = console_on(ignoring_write_errors(sys.stdout)) if with_summary else None
    kind = LiveDisplay if is_terminal(sys.stderr) else ProgressDisplay
    display = kind(sys.stderr, summary_console)
    try:
        with log_warnings_as_notes(display, debug=debug):
            yield display
    finally:
        display.close()


@contextmanager
def log_warnings_as_notes(display: Display, *, debug: bool) -> Iterator[None]:
    """In the ``with`` block, show logged warnings and errors as notes of a display; with `debug`, also tracebacks."""
    handler = _NoteHandler(display, debug)
    loggers = [logging.getLogger(package) for package in ("tuner", "studies", "search_spaces")]
    for logger in loggers:
        logger.addHandler(handler)
    # On a full disk the command reports the error; logging must not also report that it cannot write.
    raises_before, logging.raiseExceptions = logging.raiseExceptions, debug
    try:
        yield
    finally:
        logging.raiseExceptions = raises_before
        for logger in loggers:
            logger.removeHandler(handler)


class _NoteHandler(logging.Handler):
    """A handler that shows log records as notes of a display.

    Records with a traceback are shown only for debugging, because the display reports the errors of trials anyway.
    """

    def __init__(self, display: Display, debug: bool) -> None:
        super().__init__(logging.WARNING)
        self._display = display
        self._debug = debug

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is None:
            self._display.note(record.getMessage())
        elif self._debug:
            self._display.note("".join(traceback.format_exception(*record.exc_info)).rstrip())
