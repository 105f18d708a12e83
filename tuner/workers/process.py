"""The parent's interface to a worker process: start the process with orders, read its events, stop it.

The parent writes orders to the worker's standard input, and the worker writes events to its standard output. The worker
stops when its standard input closes, which the kernel does even if the parent is killed. Each worker has a process
group of its own, so that Ctrl-C reaches only the parent, which then stops the workers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import IO

from tuner.workers.base import Lines, Worker
from tuner.workers.orders import WorkerOrders, to_line

WORKER_MODULE = "tuner.cli.worker_main"


def threads_per_worker(threads: int, workers: int) -> int:
    """Return the number of threads of each worker, the same for all, because the results depend on it."""
    return max(1, threads // workers)


class WorkerProcess(Worker):
    """A running worker process.

    Attributes:
        process: The operating system process.
    """

    def __init__(self, orders: WorkerOrders, lines: Lines, *, failed_starts: int = 0) -> None:
        """Start a process with orders; `lines` receives each line of its standard output, and None at the end."""
        super().__init__(failed_starts)
        line = to_line(orders)  # before the process starts, since this may raise
        self._lines = lines
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the worker handles it
        try:
            self.process = subprocess.Popen(
                # Import the same modules as this process, not files of the same names in the working directory.
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
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has exited; its exit code shows the reason
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def request_stop(self) -> None:
        """Close the worker's standard input, so that the worker interrupts its trial and exits."""
        _close(self.process.stdin)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the process has exited; see `Worker.wait`."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()

    def close(self) -> None:
        """Read the remaining output of the exited process, and close its pipes."""
        for listener in self._listeners:
            listener.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            _close(stream)

    def _forward(self, stream: Iterable[str]) -> None:
        for line in stream:
            self._lines.put((self, line))
        self._lines.put((self, None))

    def _collect(self, stream: Iterable[str]) -> None:
        self.errors.extend(line.rstrip() for line in stream)


def _import_path() -> str:
    return os.pathsep.join(folder or os.getcwd() for folder in sys.path)


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):
            stream.close()
