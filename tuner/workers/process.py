"""The parent's interface to a worker process: start the process with orders, read its events, stop it.

The parent writes orders to the worker's standard input, and the worker writes events to its standard output. The worker
stops when its standard input closes, which the kernel does even if the parent is killed. Each worker has a process
group of its own, so that Ctrl-C reaches only the parent, which then stops the workers.
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


def threads_per_worker(threads: int, workers: int) -> int:
    """Return the number of threads of each worker, the same for all, because the results depend on it."""
    return max(1, threads // workers)


class WorkerProcess:
    """A running worker process.

    Attributes:
        process: The operating system process.
        running: Number of the trial that the worker is training; None between two trials.
        interrupted: Numbers of the trials that the worker has interrupted.
        failed_starts: The number of the worker's predecessors in a row that were killed before they started a trial.
    """

    def __init__(
        self,
        orders: WorkerOrders | ProbeOrders,
        lines: queue.SimpleQueue[tuple[WorkerProcess, str | None]],
        *,
        failed_starts: int = 0,
    ) -> None:
        """Start a process with orders; `lines` receives each line of its standard output, and None at the end."""
        line = to_line(orders)  # before the process starts, since this may raise
        self.running: int | None = None
        self.interrupted: set[int] = set()
        self.failed_starts = failed_starts
        self._lines = lines
        self._errors: list[str] = []
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
        self._write(line)

    @property
    def problems(self) -> list[str]:
        """The problems that the worker reported on standard error; if it reported none, the last line there."""
        problems = [line.removeprefix("error: ") for line in self._errors if line.startswith("error: ")]
        return problems or [line for line in self._errors if line][-1:]

    @property
    def stderr_text(self) -> str:
        """The worker's complete output on standard error."""
        return "\n".join(self._errors)

    def send(self, message: object) -> None:
        """Write a message of the module `orders` to the worker's standard input."""
        self._write(to_line(message))

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has exited; its exit code shows the reason
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def request_stop(self) -> None:
        """Close the worker's standard input, so that the worker interrupts its trial and exits."""
        _close(self.process.stdin)

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
        self._errors.extend(line.rstrip() for line in stream)


def end_processes(processes: Sequence[WorkerProcess]) -> None:
    """Stop worker processes; kill those that do not exit within eight seconds."""
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
