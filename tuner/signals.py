"""Stopping on request: a first signal unwinds the program, so that nothing is left half; a second ends it at once.

Python runs a signal's handler in the main thread alone, between two of its steps, and a call may last for minutes: so
long SQLite waits for a lock. Therefore a thread hears signals too, and ends the process where the handler cannot.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SECONDS_TO_ANSWER = 8.0  # until the handler of a first signal has run
_STDERR = 2


class StopRequested(KeyboardInterrupt):
    """A signal asked the program to stop; raised in the main thread, wherever that is.

    Attributes:
        signum: Which signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """The exit status that shells expect: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.signum


# What is still done, by another thread, when a stop ends the process in the midst of a call.
before_forced_end: list[Callable[[], object]] = []

_requested: StopRequested | None = None
_holds_back = False  # a block is being set up or cleared away, which an exception must not cut short
_listener: _Listener | None = None


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `StopRequested` in this block on SIGINT, SIGTERM or SIGHUP; a second signal ends the process at once.

    Where nothing can be raised, because the main thread is in a call that does not return, a second signal does the
    same, and a first one ends the process after eight seconds, with a line on standard error. (A call that keeps
    Python's lock meanwhile stops that, too.) How long it takes to unwind is not limited.

    Earlier handlers and the earlier wakeup descriptor are put back at the end. A SIGHUP that is ignored stays ignored:
    so asks ``nohup``. In a thread other than the main one, where Python allows no handlers, nothing happens, nor in a
    block within such a block, which the outer one serves. A forked child keeps the handlers alone.
    """
    global _requested, _holds_back, _listener
    if threading.current_thread() is not threading.main_thread() or _listener is not None:
        yield
        return
    caught = [one for one in STOP_SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
    before: dict[signal.Signals, Any] = {}
    hook, swallowed = sys.unraisablehook, list[int]()

    def raise_again(args: Any) -> Any:
        if type(args.exc_value) is not StopRequested:
            return hook(args)
        swallowed.append(1)  # by code in C, which may continue with a wrong result
        signal.signal(signal.SIGALRM, lambda *_: None if _holds_back else raise_if_requested())
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    _holds_back = True
    try:
        sys.unraisablehook = raise_again
        for number in caught:
            before[number] = signal.signal(number, _handle)
        _listener = _Listener(caught)
        _listener.begin()
        _holds_back = False
        raise_if_requested()
        yield
    finally:
        _holds_back = True
        known = None if swallowed else _requested
        if _listener is not None:  # None in a forked child
            _listener.end()
        try:
            for number in reversed(before):  # SIGINT last: its usual handler raises
                # None: it was installed by other means than Python, and cannot be put back.
                signal.signal(number, signal.SIG_DFL if before[number] is None else before[number])
        finally:
            sys.unraisablehook = hook
            if swallowed:
                signal.setitimer(signal.ITIMER_REAL, 0)  # it would end the process while the interpreter exits
            late = None if _requested is known else _requested
            _requested = None
            _holds_back = False
        if late is not None:
            raise late


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
    if not _holds_back:
        raise _requested


class _Listener:
    """A thread that hears of signals as they come, through a pipe, whatever the main thread does."""

    def __init__(self, signals: Collection[int]) -> None:
        self._signals = signals
        self._is_over = False
        self._earlier_fd = -1
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._listen, name="stop signals", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        self._earlier_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def end(self) -> None:
        """Hear no more; return when the thread has ended."""
        global _listener
        self._is_over = True
        signal.set_wakeup_fd(self._earlier_fd)
        _listener = None  # before the pipe is closed: a child forked meanwhile must not close other files' numbers
        # A byte that is no signal, since a child may keep the pipe open. A full pipe wakes the thread as well.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"\0")
        self._thread.join()
        self.close()

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        first = 0
        deadline = math.inf
        while not self._is_over:
            if poll.poll(None if deadline == math.inf else max(0.0, deadline - time.monotonic()) * 1000):
                [number] = os.read(self._reader, 1)
                if number not in self._signals or self._is_over:  # others' handlers write here, too
                    continue
                if first:
                    os._exit(128 + number)
                first, deadline = number, time.monotonic() + _SECONDS_TO_ANSWER
            elif _requested is None:
                name = signal.Signals(first).name
                _tell(f"stopped by {name} in a call that did not return; what was finished is kept")
                for action in before_forced_end:
                    with contextlib.suppress(Exception):  # the main thread may be at the same
                        action()
                os._exit(128 + first)
            else:
                deadline = math.inf


def _tell(line: str) -> None:
    """Write a line to standard error, unless that would have to wait: a terminal may be stopped, a pipe full."""
    with contextlib.suppress(OSError):
        if select.select([], [_STDERR], [], 0)[1]:
            os.write(_STDERR, f"{line}\n".encode())


def _forget_after_fork() -> None:
    """What a forked child is sent is not the parent's to hear, and what the parent was sent not the child's."""
    global _requested, _holds_back, _listener
    if _listener is not None:
        signal.set_wakeup_fd(-1)
        _listener.close()
    _requested = _listener = None
    _holds_back = False


os.register_at_fork(after_in_child=_forget_after_fork)
