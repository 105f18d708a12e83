"""Stopping on request: a first signal unwinds the program, so that nothing is left half; a second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(KeyboardInterrupt):
    """A signal asked the program to stop; raised in the main thread, wherever that is.

    Attributes:
        signum: Which signal.
    """

    def __init__(self, signum: int) -> None:
        """Take the signal's number."""
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """The exit status that shells expect: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.signum


_requested: StopRequested | None = None


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `StopRequested` in this block on SIGINT, SIGTERM or SIGHUP; a second signal ends the process at once.

    Earlier handlers are put back at the end. A SIGHUP that is ignored stays ignored: so asks ``nohup``. In a thread
    other than the main one, where Python allows no handlers, nothing happens.
    """
    global _requested
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = [
        number for number in STOP_SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, _handle) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: it was installed by other means than Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _requested = None


def raise_if_requested() -> None:
    """Raise the stop once more: Python swallows an exception that a handler happens to raise in a destructor.

    Raises:
        StopRequested: A signal has come.
    """
    if _requested is not None:
        raise _requested


def _handle(signum: int, frame: FrameType | None) -> None:
    global _requested
    if _requested is not None:
        os._exit(128 + signum)
    _requested = StopRequested(signum)
    raise _requested
