"""The interface of a worker that a command has started: a process on this machine, or a task in a cluster."""

from __future__ import annotations

import contextlib
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

_SECONDS_TO_STOP, _SECONDS_TO_KILL = 8.0, 1.0
# The line in place of an event if the node of a worker was lost; the worker starts again on another node.
NODE_LOST = "node lost"


class Worker(ABC):
    """A running worker.

    Attributes:
        running: Number of the trial that the worker is training; None between two trials.
        interrupted: Numbers of the trials that the worker has interrupted.
        failed_starts: The number of the worker's predecessors in a row that were killed before they started a trial.
        errors: The lines that the worker has written to standard error.
    """

    def __init__(self, failed_starts: int = 0) -> None:
        self.running: int | None = None
        self.interrupted: set[int] = set()
        self.failed_starts = failed_starts
        self.errors: list[str] = []

    @property
    def problems(self) -> list[str]:
        """The problems that the worker reported on standard error; if it reported none, the last line there."""
        problems = [line.removeprefix("error: ") for line in self.errors if line.startswith("error: ")]
        return problems or [line for line in self.errors if line][-1:]

    @property
    def stderr_text(self) -> str:
        """The worker's complete output on standard error."""
        return "\n".join(self.errors)

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the worker has exited; return its exit code, negative for the signal that killed it.

        Raises:
            TimeoutError: The worker is still running after `timeout_s`.
        """

    @abstractmethod
    def request_stop(self) -> None:
        """Let the worker interrupt its trial and exit."""

    @abstractmethod
    def kill(self) -> None:
        """Kill the worker."""

    @abstractmethod
    def close(self) -> None:
        """Free the resources of the worker, which has exited."""


Lines = queue.SimpleQueue[tuple[Worker, str | None]]


def end_workers(workers: Sequence[Worker], timeout_s: float = _SECONDS_TO_STOP) -> None:
    """Stop workers; kill those that do not exit within `timeout_s`."""
    for worker in workers:
        worker.request_stop()
    deadline = time.monotonic() + timeout_s
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            worker.kill()
            with contextlib.suppress(TimeoutError):  # a task on a lost node
                worker.wait(_SECONDS_TO_KILL)
        worker.close()
