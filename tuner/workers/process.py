"""A worker process as its parent sees it: started with orders, read, asked to stop, closed.

The parent writes orders to the worker's standard input. The worker stops when that closes, which the kernel does
however the parent ends. The worker writes events to its standard output. Workers are in process groups of their own, so
that Ctrl-C reaches the parent alone, which stops them.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import IO

from tuner.workers.orders import ProbeOrders, WorkerOrders, to_line

WORKER_MODULE = "tuner.cli.worker_main"
_SECONDS_TO_STOP = 8.0


def shared_threads(threads: int, workers: int) -> list[int]:
    """Divide threads among workers as evenly as possible, at least one for each."""
    return [max(1, threads // workers + (number < threads % workers)) for number in range(workers)]


class WorkerProcess:
    """A worker process.

    Attributes:
        threads: PyTorch's threads in it.
        process: The process.
        running: Number of the trial that it trains; None between two trials.
        interrupted: Numbers of the trials that it has left pending.
        failed_starts: How many processes in its place were killed before they started a trial.
    """

    def __init__(
        self,
        orders: WorkerOrders | ProbeOrders,
        lines: queue.SimpleQueue[tuple[WorkerProcess, str | None]],
        *,
        failed_starts: int = 0,
    ) -> None:
        """Start a process with its orders; `lines` receives each line of its standard output, and None at the end."""
        line = to_line(orders)  # before the process starts: an error leaves none behind
        self.threads = orders.threads
        self.running: int | None = None
        self.interrupted: set[int] = set()
        self.failed_starts = failed_starts
        self._lines = lines
        self._errors: list[str] = []
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the worker handles it
        try:
            self.process = subprocess.Popen(
                # What this process imports, and no file of the working directory that happens to have the same name.
                [sys.executable, "-P", "-m", WORKER_MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="backslashreplace",
                env=os.environ | {"OMP_NUM_THREADS": str(orders.threads), "PYTHONPATH": _import_path()},
                process_group=0,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._listeners = [
            threading.Thread(target=target, args=(stream,), daemon=True)
            for target, stream in ((self._forward, self.process.stdout), (self._collect, self.process.stderr))
        ]
        for listener in self._listeners:
            listener.start()
        self._write(line)

    @property
    def problems(self) -> list[str]:
        """The problems among the lines that it wrote to standard error; the last line if none is one."""
        problems = [line.removeprefix("error: ") for line in self._errors if line.startswith("error: ")]
        return problems or [line for line in self._errors if line][-1:]

    @property
    def stderr_text(self) -> str:
        """All that it wrote to standard error."""
        return "\n".join(self._errors)

    def send(self, message: object) -> None:
        """Write a message of `orders` to its standard input."""
        self._write(to_line(message))

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has exited; its exit code tells why
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def request_stop(self) -> None:
        """Close its standard input, so that it interrupts its trial and exits."""
        _close(self.process.stdin)

    def close(self) -> None:
        """Read the rest of the output of a process that has exited, and close its pipes."""
        for listener in self._listeners:
            listener.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            _close(stream)

    def _forward(self, stream: Iterable[str]) -> None:
        for line in stream:
            self._lines.put((self, line))
        self._lines.put((self, None))

    def _collect(self, stream: Iterable[str]) -> None:
        self._errors.extend(line.rstrip() for line in stream)


def end_processes(processes: Sequence[WorkerProcess]) -> None:
    """Stop processes; kill those that have not exited after some seconds."""
    for process in processes:
        process.request_stop()
    deadline = time.monotonic() + _SECONDS_TO_STOP
    for process in processes:
        try:
            process.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.process.kill()
            process.process.wait()
        process.close()


def _import_path() -> str:
    return os.pathsep.join(folder or os.getcwd() for folder in sys.path)


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):
            stream.close()
