"""Processes that train side by side for a moment, to see how many images a second they take together."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tuner.signals import raise_if_requested
from tuner.workers.process import WorkerProcess, end_processes, shared_threads

_POLL_S = 0.2
_WARM_UP_S = 0.5
_WINDOW_S = 1.0
# A window holds so many of the first process's steps, as far as that takes no longer than the other number says.
_STEPS = 8
_LONGEST_WINDOW_S = 4.0
# What a training takes beyond some first steps of it: validation in larger batches, logs, the study.
_MEMORY_MARGIN = 1.25
_DEVICE_CONTEXT_BYTES = 2**30  # CUDA's own part of the device's memory, for each process
_GB = 1e9


class MeasurementError(Exception):
    """So many processes could not be measured; the message says why."""


class ThroughputProbe:
    """Processes that are begun as they are needed, and take training steps when they are told to."""

    def __init__(self, orders: Mapping[str, Any], *, threads: int, seconds: float) -> None:
        """Begin none yet.

        Args:
            orders: What each process trains, plain data.
            threads: PyTorch's threads, which they share.
            seconds: How long it may take from now on, beginning the processes included.
        """
        self._orders = dict(orders)
        self._threads = threads
        self._deadline = time.monotonic() + seconds
        self._processes: list[WorkerProcess] = []
        self._lines: queue.SimpleQueue[tuple[WorkerProcess, str | None]] = queue.SimpleQueue()
        self._seconds_per_step = 0.0
        self._device_bytes = self._device_free_bytes = 0

    def __enter__(self) -> ThroughputProbe:
        """Begin nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes."""
        end_processes(self._processes)

    def begin(self, count: int) -> None:
        """Begin processes until there are so many, and wait until all are ready to train.

        Raises:
            MeasurementError: There is not enough memory for them, one of them ended, or it takes too long.
        """
        more = count - len(self._processes)
        if more <= 0:
            return
        if self._processes:
            self._check_room(more)
        # None of them will ever have more threads than its share now, but for the first.
        share = max(shared_threads(self._threads, count))
        for _ in range(more):
            self._processes.append(WorkerProcess(self._orders | {"threads": share}, self._lines, threads=share))
        answers = self._answers(self._processes[-more:])
        self._seconds_per_step = max(answer["seconds_per_step"] for answer in answers)

    def images_per_s(self, threads: Sequence[int]) -> float:
        """Return what as many processes as `threads` has numbers take together, each with so many threads.

        Raises:
            MeasurementError: As `begin`.
        """
        self.begin(len(threads))
        chosen = self._processes[: len(threads)]
        window = min(max(_WINDOW_S, _STEPS * self._seconds_per_step), _LONGEST_WINDOW_S)
        # One clock for all processes of a machine. They go on until the slowest has measured.
        begin = time.monotonic() + _WARM_UP_S
        for process, share in zip(chosen, threads, strict=True):
            process.tell({"threads": share, "begin": begin, "end": begin + window})
        answers = self._answers(chosen)
        for process in chosen:
            process.tell({})
        self._device_bytes = max(answer["device_bytes"] for answer in answers) + _DEVICE_CONTEXT_BYTES
        self._device_free_bytes = min(answer["device_free_bytes"] for answer in answers)
        return sum(float(answer["images_per_s"]) for answer in answers)

    def _check_room(self, more: int) -> None:
        """Refuse processes that would not find enough memory."""
        needs = [("memory", max(map(_memory_of, self._processes)), free_memory())]
        if self._device_free_bytes:
            needs.append(("GPU memory", self._device_bytes, self._device_free_bytes))
        for name, each, free in needs:
            needed = more * each * _MEMORY_MARGIN
            if needed > free:
                raise MeasurementError(f"{more} more need {needed / _GB:.1f} GB of {name}, {free / _GB:.1f} are free")

    def _answers(self, processes: Sequence[WorkerProcess]) -> list[dict[str, Any]]:
        """Wait for an answer of each of some processes."""
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < len(processes):
            raise_if_requested()
            if time.monotonic() > self._deadline:
                raise MeasurementError("it takes too long")
            try:
                process, line = self._lines.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if line is None:
                raise MeasurementError(_end_of(process))
            answers[id(process)] = json.loads(line)
        return [answers[id(process)] for process in processes]


def free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory that this machine, or the container that this is, still has to give."""
    free = psutil.virtual_memory().available
    try:
        most, used = (int((cgroup / f"memory.{name}").read_text()) for name in ("max", "current"))
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return min(free, most - used + int(statistics["file"]))  # cached files go when memory is wanted
    except (OSError, ValueError, KeyError):  # there is no such limit
        return free


def _memory_of(process: WorkerProcess) -> int:
    """Return the bytes of memory that a process needs; what several share is counted once altogether."""
    try:
        measured = psutil.Process(process.process.pid)
        try:
            used = measured.memory_full_info()
        except psutil.AccessDenied:  # macOS shows so much to administrators alone
            return int(measured.memory_info().rss)
    except psutil.Error as error:
        raise MeasurementError("a process of the measurement died") from error
    return int(getattr(used, "pss", used.uss))


def _end_of(process: WorkerProcess) -> str:
    code = process.process.wait()
    process.put_away()
    if code < 0:
        return f"a process of the measurement was killed by signal {-code}"
    return next(iter(process.problems), f"a process of the measurement ended with exit code {code}")
