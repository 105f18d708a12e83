"""The handling of stop signals: the first raises an exception that unwinds the program, a second exits at once.

Python runs signal handlers only in the main thread, between two bytecode instructions. A call into C can delay them for
minutes, for example while SQLite waits for a lock. Therefore a thread also receives the signals, and exits the process
if the handler cannot run.
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
_SECONDS_TO_HANDLE = 8.0  # until the handler of the first signal must have run
_STDERR = 2


class StopRequested(KeyboardInterrupt):
    """The exception that a stop signal raises in the main thread.

    Attributes:
        signum: The number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """The exit status that shells expect: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.signum


# The listener thread calls these before it exits the process while the main thread is in a long call.
before_forced_exit: list[Callable[[], object]] = []

_requested: StopRequested | None = None
_is_deferred = False  # whether a stop is raised later, because a block is starting or ending
_listener: _Listener | None = None


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `StopRequested` inside the ``with`` block on SIGINT, SIGTERM or SIGHUP; exit at once on a second signal.

    No exception can be raised while the main thread is in a call that does not return. The first signal then exits the
    process after eight seconds, with a line on standard error, unless the call holds the GIL. The time for unwinding is
    not limited.

    At the end, the earlier handlers and the earlier wakeup descriptor are restored. An ignored SIGHUP stays ignored,
    as ``nohup`` requires. The block has no effect inside another such block, or outside the main thread, where Python
    allows no handlers. A forked child keeps the handlers, but not the thread.
    """
    global _requested, _is_deferred, _listener
    if threading.current_thread() is not threading.main_thread() or _listener is not None:
        yield
        return
    caught = [one for one in STOP_SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
    before: dict[signal.Signals, Any] = {}
    hook, swallowed = sys.unraisablehook, list[int]()

    def raise_again(args: Any) -> Any:
        if type(args.exc_value) is not StopRequested:
            return hook(args)
        swallowed.append(1)  # by C code, which may continue with a wrong result
        signal.signal(signal.SIGALRM, lambda *_: None if _is_deferred else raise_if_requested())
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    _is_deferred = True
    try:
        sys.unraisablehook = raise_again
        for number in caught:
            before[number] = signal.signal(number, _handle)
        _listener = _Listener(caught)
        _listener.start()
        _is_deferred = False
        raise_if_requested()
        yield
    finally:
        _is_deferred = True
        raised = None if swallowed else _requested
        if _listener is not None:  # None in a forked child
            _listener.stop()
        try:
            for number in reversed(before):  # SIGINT last: its default handler raises
                # None: the handler was not installed from Python, so it cannot be restored.
                signal.signal(number, signal.SIG_DFL if before[number] is None else before[number])
        finally:
            sys.unraisablehook = hook
            if swallowed:
                signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm during interpreter shutdown would kill the process
            not_raised = None if _requested is raised else _requested
            _requested = None
            _is_deferred = False
        if not_raised is not None:
            raise not_raised


def signal_text(signum: int) -> str:
    """Format a signal number, for example ``SIGKILL (signal 9)``."""
    names = [known.name for known in signal.Signals if known == signum]
    return f"{names[0]} (signal {signum})" if names else f"signal {signum}"


def raise_if_requested() -> None:
    """Raise `StopRequested` again if a signal has requested a stop.

    This is needed because Python swallows an exception that a handler raises inside a destructor.

    Raises:
        StopRequested: A signal has been received.
    """
    if _requested is not None:
        raise _requested


def _handle(signum: int, frame: FrameType | None) -> None:
    global _requested
    if _requested is not None:
        os._exit(128 + signum)
    _requested = StopRequested(signum)
    if not _is_deferred:
        raise _requested


class _Listener:
    """A thread that receives signals through a pipe, even while native code blocks the main thread."""

    def __init__(self, signals: Collection[int]) -> None:
        self._signals = signals
        self._is_stopped = False
        self._earlier_fd = -1
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._listen, name="stop signals", daemon=True)
        self._thread.start()

    def start(self) -> None:
        self._earlier_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def stop(self) -> None:
        """Stop listening, and wait until the thread has exited."""
        global _listener
        self._is_stopped = True
        signal.set_wakeup_fd(self._earlier_fd)
        _listener = None  # before the pipe is closed: a child forked now must not close reused descriptors
        # Wake the thread with a byte that is not a signal number, because a forked child may keep the pipe open. If the
        # pipe is full, the thread wakes anyway.
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
        first_signal = 0
        deadline = math.inf
        while not self._is_stopped:
            if poll.poll(None if deadline == math.inf else max(0.0, deadline - time.monotonic()) * 1000):
                [number] = os.read(self._reader, 1)
                if number not in self._signals or self._is_stopped:  # Python also writes the numbers of other signals
                    continue
                if first_signal:
                    os._exit(128 + number)
                first_signal, deadline = number, time.monotonic() + _SECONDS_TO_HANDLE
            elif _requested is None:
                name = signal.Signals(first_signal).name
                _print_error(f"stopped by {name} during a call that did not return; finished work is kept")
                for action in before_forced_exit:
                    with contextlib.suppress(Exception):  # the main thread may be doing the same
                        action()
                os._exit(128 + first_signal)
            else:
                deadline = math.inf


def _print_error(line: str) -> None:
    """Write a line to standard error unless that would block, as with a paused terminal or a full pipe."""
    with contextlib.suppress(OSError):
        if select.select([], [_STDERR], [], 0)[1]:
            os.write(_STDERR, f"{line}\n".encode())


def _reset_after_fork() -> None:
    """Reset this module in a forked child, so that parent and child handle only their own signals."""
    global _requested, _is_deferred, _listener
    if _listener is not None:
        signal.set_wakeup_fd(-1)
        _listener.close()
    _requested = _listener = None
    _is_deferred = False


os.register_at_fork(after_in_child=_reset_after_fork)
