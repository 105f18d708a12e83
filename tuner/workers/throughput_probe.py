"""Processes that train in parallel for some seconds, to measure their total throughput in images per second."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from search_spaces import TrainingConfig
from search_spaces.diagnostics.plural import counted
from tuner.signals import raise_if_requested, signal_text
from tuner.workers.base import Lines, Worker, end_workers
from tuner.workers.orders import Message, ProbeOrders, ProbeRate, ProbeReady, ProbeWindow, from_line
from tuner.workers.process import WorkerProcess

_POLL_S = 0.2
_WARM_UP_S = 0.5
_WINDOW_S = 1.0
# The slowest process takes this many training steps per window, unless the window reaches its maximum length.
_STEPS = 8
_MAX_WINDOW_S = 4.0
# A full training run needs more memory than its first steps: larger validation batches, logs, the study.
_MEMORY_MARGIN = 1.25
_DEVICE_CONTEXT_BYTES = 2**30  # GPU memory for the CUDA context of each process
_GB = 1e9


class MeasurementError(Exception):
    """The throughput could not be measured; the message gives the reason."""


class ThroughputProbe:
    """Measurement processes that are started as needed and take training steps on request."""

    def __init__(self, config: TrainingConfig, *, threads_for: Callable[[int], int], seconds: float) -> None:
        """Prepare a measurement; no process is started yet.

        Args:
            config: The settings with which each process trains.
            threads_for: Returns the number of PyTorch threads of each process for a number of processes.
            seconds: Time limit for the whole measurement, which starts now and includes the start of the processes.
        """
        self._config = config
        self._threads_for = threads_for
        self._deadline = time.monotonic() + seconds
        self._processes: list[WorkerProcess] = []
        self._lines: Lines = queue.SimpleQueue()
        self._seconds_per_step = 0.0
        self._device_bytes = self._device_free_bytes = 0

    def __enter__(self) -> ThroughputProbe:
        return self

    def __exit__(self, *error: object) -> None:
        end_workers(self._processes)

    def start(self, count: int) -> None:
        """Start processes until there are `count`, and wait until the new processes are ready to train.

        Raises:
            MeasurementError: There is not enough memory, a process exited, or the time limit was reached.
        """
        more = count - len(self._processes)
        if more <= 0:
            return
        if self._processes:
            self._check_memory(more)
        for _ in range(more):
            orders = ProbeOrders(self._config, self._threads_for(count))
            self._processes.append(WorkerProcess(orders, self._lines))
        answers = self._answers(self._processes[-more:], ProbeReady)
        self._seconds_per_step = max(answer.seconds_per_step for answer in answers)

    def images_per_s(self, count: int) -> float:
        """Measure the total throughput of `count` parallel processes in images per second.

        Raises:
            MeasurementError: There is not enough memory, a process exited, or the time limit was reached.
        """
        self.start(count)
        chosen = self._processes[:count]
        window = min(max(_WINDOW_S, _STEPS * self._seconds_per_step), _MAX_WINDOW_S)
        start = time.monotonic() + _WARM_UP_S
        for process in chosen:
            process.send(ProbeWindow(self._threads_for(count), start, start + window))
        answers = self._answers(chosen, ProbeRate)
        for process in chosen:  # each continues training until the slowest has measured
            process.send(None)
        self._device_bytes = max(answer.device_bytes for answer in answers) + _DEVICE_CONTEXT_BYTES
        self._device_free_bytes = min(answer.device_free_bytes for answer in answers)
        return sum(answer.images_per_s for answer in answers)

    def _check_memory(self, more: int) -> None:
        """Raise `MeasurementError` if `more` additional processes need more memory than is free."""
        needs = [("memory", max(map(_memory_of, self._processes)), free_memory())]
        if self._device_free_bytes:
            needs.append(("GPU memory", self._device_bytes, self._device_free_bytes))
        for name, each, free in needs:
            needed = more * each * _MEMORY_MARGIN
            if needed > free:
                workers = counted(more, "more worker needs", "more workers need")
                raise MeasurementError(f"{workers} {needed / _GB:.1f} GB of {name}; only {free / _GB:.1f} GB is free")

    def _answers(self, processes: Sequence[Worker], kind: type[Message]) -> list[Message]:
        answers: dict[int, Message] = {}
        while len(answers) < len(processes):
            raise_if_requested()
            if time.monotonic() > self._deadline:
                raise MeasurementError("the time limit of the measurement was reached")
            try:
                process, line = self._lines.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if line is None:
                raise MeasurementError(_exit_reason(process))
            answers[id(process)] = from_line(kind, line)
        return [answers[id(process)] for process in processes]


def free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the free memory in bytes: of the machine, or of the container that this process runs in."""
    free = psutil.virtual_memory().available
    try:
        limit, used = (int((cgroup / f"memory.{name}").read_text()) for name in ("max", "current"))
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(statistics["file"]))  # cached files are evicted when memory is needed
    except (OSError, ValueError, KeyError):  # not in a container, or without a limit
        return free


def _memory_of(process: Worker) -> int:
    """Return the memory of a process in bytes, including its proportional part of shared memory."""
    try:
        measured = psutil.Process(process.pid)
        try:
            used = measured.memory_full_info()
        except psutil.AccessDenied:  # macOS shows this information only to administrators
            return int(measured.memory_info().rss)
    except psutil.Error as error:
        raise MeasurementError("a measurement process exited") from error
    return int(getattr(used, "pss", used.uss))


def _exit_reason(process: Worker) -> str:
    code = process.wait()
    process.close()
    if code < 0:
        return f"a measurement process was killed by {signal_text(-code)}"
    return next(iter(process.problems), f"a measurement process exited with code {code} without a message")
