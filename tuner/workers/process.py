"""A worker process as its parent sees it: begun with its orders, listened to, asked to stop, put away.

A worker's orders are lines of its standard input; it stops when that closes, which the kernel does for us
however this process ends. What it does comes back as events on its standard output. Workers are in process groups of
their own, so that Ctrl-C reaches their parent alone, and them only through it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

CHILD = "tuner.cli.worker_main"
_SECONDS_TO_STOP = 8.0


def shared_threads(threads: int, workers: int) -> list[int]:
    """Divide threads among workers as evenly as they go, one at least for each."""
    return [max(1, threads // workers + (number < threads % workers)) for number in range(workers)]


class WorkerProcess:
    """A worker process.

    Attributes:
        threads: PyTorch's threads in it.
        process: The process.
        running: Number of the trial that it works on; None between two.
        failed_starts: How many processes in its place died before they began a trial.
    """

    def __init__(
        self,
        orders: Mapping[str, Any],
        lines: queue.SimpleQueue[tuple[WorkerProcess, str | None]],
        *,
        threads: int,
        failed_starts: int = 0,
    ) -> None:
        """Begin a process.

        Args:
            orders: Its orders, plain data.
            lines: Gets each line that it writes to standard output, with itself, and None when there will be no more.
            threads: PyTorch's threads in it.
            failed_starts: How many processes in its place died before they began a trial.
        """
        self.threads = threads
        self.running: int | None = None
        self.failed_starts = failed_starts
        self._lines = lines
        self._errors: list[str] = []
        self.process = subprocess.Popen(
            # What this process imports, and no file of the working directory that happens to have the same name.
            [sys.executable, "-P", "-m", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": _import_path()},
            process_group=0,
        )
        self._listeners = [
            threading.Thread(target=target, args=(stream,), daemon=True)
            for target, stream in ((self._forward, self.process.stdout), (self._collect, self.process.stderr))
        ]
        for listener in self._listeners:
            listener.start()
        self.tell(orders)

    @property
    def problems(self) -> list[str]:
        """The problems among the lines that it wrote to standard error; the last line if none is one."""
        problems = [line.removeprefix("error: ") for line in self._errors if line.startswith("error: ")]
        return problems or [line for line in self._errors if line][-1:]

    @property
    def last_words(self) -> str:
        """All that it wrote to standard error."""
        return "\n".join(self._errors)

    def tell(self, orders: Mapping[str, Any]) -> None:
        """Give it orders: those it begins with, or further ones if it waits for some."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died; its exit code tells
            self.process.stdin.write(json.dumps(orders) + "\n")
            self.process.stdin.flush()

    def request_stop(self) -> None:
        """Let it leave its trial for later and end."""
        _close(self.process.stdin)

    def put_away(self) -> None:
        """Let go of a process that has ended; what it wrote has all been read then."""
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
    """End processes: ask first, and kill after a while."""
    for process in processes:
        process.request_stop()
    deadline = time.monotonic() + _SECONDS_TO_STOP
    for process in processes:
        try:
            process.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.process.kill()
            process.process.wait()
        process.put_away()


def _import_path() -> str:
    return os.pathsep.join(folder or os.getcwd() for folder in sys.path)


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):
            stream.close()
