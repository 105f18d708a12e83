"""Several worker processes for one command: begun, watched, shown, replaced when they die, ended with this process.

A worker's orders are the first line of its standard input; it stops when that closes, which the kernel does for us
however this process ends. What it does comes back as events on its standard output. Workers are in process groups of
their own, so that Ctrl-C reaches this process alone, and them only through it.
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
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import torch

from search_spaces import ConfigurationError, TrainingConfig
from studies import TrialRecord
from tuner.display import Display
from tuner.display.events import replay
from tuner.scope import Limits, Scope
from tuner.session import Session
from tuner.signals import raise_if_requested

CHILD = "tuner.cli.child"
_POLL_S = 0.2
_SECONDS_TO_STOP = 8.0
# A worker that dies before it has begun a trial, again and again, will not live the next time either.
_MOST_STILLBIRTHS = 3
_MENDABLE = 2  # a worker's exit code if what it wrote to standard error are problems that a user can mend


@dataclass
class _Worker:
    """A worker process.

    Attributes:
        threads: PyTorch's threads in it.
        process: The process.
        listeners: Threads that read what it writes.
        running: Number of the trial that it works on; None between two.
        errors: What it wrote to standard error.
        stillbirths: How many processes in its place died before they began a trial.
    """

    threads: int
    process: subprocess.Popen[str]
    listeners: list[threading.Thread] = field(default_factory=list)
    running: int | None = None
    errors: list[str] = field(default_factory=list)
    stillbirths: int = 0

    def put_away(self) -> None:
        """Let go of a process that has ended; what it wrote has all been read then."""
        for listener in self.listeners:
            listener.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            _close(stream)


class _Tracker(Display):
    """Notes which trial a worker is at."""

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, adopted: bool) -> None:
        self._worker.running = number
        self._worker.stillbirths = 0

    def trial_ended(self, record: TrialRecord) -> None:
        self._worker.running = None


def work_in_processes(session: Session, scope: Scope, limits: Limits, count: int) -> None:
    """Let worker processes train what the study owes; return when all have ended.

    A worker that dies is replaced; its trial is taken up by whoever comes first.

    Args:
        session: The opened study; its display shows what the workers do.
        scope: Which trials.
        limits: What ends the work early.
        count: Worker processes; this process's PyTorch threads are divided among them.

    Raises:
        ConfigurationError: Every worker has ended because of problems that a user can mend.
        RuntimeError: Every worker has ended because of a problem, and not all are such.
    """
    supervisor = _Supervisor(session, scope, limits)
    try:
        for threads in shared_threads(torch.get_num_threads(), count):
            supervisor.begin(threads)
        supervisor.watch()
    finally:
        supervisor.stop()


def shared_threads(threads: int, workers: int) -> list[int]:
    """Divide threads among workers as evenly as they go, one at least for each."""
    return [max(1, threads // workers + (number < threads % workers)) for number in range(workers)]


class _Supervisor:
    def __init__(self, session: Session, scope: Scope, limits: Limits) -> None:
        self._session = session
        self._scope = scope
        self._limits = limits
        self._display = session.workplace.display
        self._workers: list[_Worker] = []
        self._lines: queue.SimpleQueue[tuple[_Worker, str | None]] = queue.SimpleQueue()
        self._problems: list[str] = []
        self._mendable = True
        self._last_words: list[str] = []
        self._succeeded = False

    def begin(self, threads: int, stillbirths: int = 0) -> None:
        """Start a worker process."""
        process = subprocess.Popen(
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
        worker = _Worker(threads, process, stillbirths=stillbirths)
        self._workers.append(worker)
        for target, stream in ((self._forward, process.stdout), (_collect, process.stderr)):
            listener = threading.Thread(target=target, args=(worker, stream), daemon=True)
            worker.listeners.append(listener)
            listener.start()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; `watch` finds out
            process.stdin.write(json.dumps(self._orders(threads)) + "\n")
            process.stdin.flush()

    def watch(self) -> None:
        """Show what workers do until all have ended."""
        while self._workers:
            raise_if_requested()
            try:
                worker, line = self._lines.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if line is None:
                self._end(worker)
            else:
                self._show(worker, line)
        if self._problems and not self._succeeded:
            raise self._error()

    def _error(self) -> Exception:
        problems = list(dict.fromkeys(self._problems))
        error = ConfigurationError(problems) if self._mendable else RuntimeError("; ".join(problems))
        for words in dict.fromkeys(self._last_words):  # tracebacks among them, for --debug
            error.add_note(f"in a worker process:\n{words}")
        return error

    def _show(self, worker: _Worker, line: str) -> None:
        with contextlib.suppress(ValueError):  # the last line of a process that was killed may be half of one
            replay(line, _Tracker(worker))
            replay(line, self._display)

    def stop(self) -> None:
        """End all workers: ask first, and kill after a while."""
        for worker in self._workers:
            _close(worker.process.stdin)
        deadline = time.monotonic() + _SECONDS_TO_STOP
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.put_away()

    def _orders(self, threads: int) -> dict[str, Any]:
        workplace = self._session.workplace
        deadline = self._limits.deadline
        names = self._scope.experiments
        return {
            "output_dir": str(workplace.folder.path),
            "storage": self._session.storage_url,
            "device": workplace.device,
            "experiments": {name: asdict(config) for name, config in workplace.experiments.items()},
            "only": None if names is None else sorted(names),
            "search": self._scope.search,
            "seconds": None if deadline is None else max(0.0, deadline - time.monotonic()),
            "until_targets": self._limits.until_targets,
            "threads": threads,
        }

    def _forward(self, worker: _Worker, stream: Iterable[str]) -> None:
        for line in stream:
            self._lines.put((worker, line))
        self._lines.put((worker, None))

    def _end(self, worker: _Worker) -> None:
        """Take leave of a worker whose output has ended; another one takes the place of one that was killed."""
        code = worker.process.wait()
        worker.put_away()
        self._workers.remove(worker)
        if worker.running is not None:
            self._display.trial_lost(worker.running)
        if code == 0:
            self._succeeded = True
        elif code > 128:
            self._display.note(f"a worker was stopped by signal {code - 128}")
        elif code > 0:
            problems = _problems_told(worker.errors) or [f"a worker process ended with exit code {code}"]
            self._problems += problems
            self._mendable &= code == _MENDABLE
            self._last_words.append("\n".join(worker.errors))
            self._display.note(f"a worker has ended: {problems[0]}")
        elif worker.running is not None or worker.stillbirths < _MOST_STILLBIRTHS:
            self._display.note(f"a worker was killed by signal {-code}; another one takes its place")
            self.begin(worker.threads, worker.stillbirths + (worker.running is None))
        else:
            self._problems.append(f"worker processes are killed (signal {-code}) before they begin a trial")


def _collect(worker: _Worker, stream: Iterable[str]) -> None:
    worker.errors.extend(line.rstrip() for line in stream)


def _problems_told(errors: list[str]) -> list[str]:
    """Return the problems among the lines that a worker wrote to standard error; the last line if none is one."""
    problems = [line.removeprefix("error: ") for line in errors if line.startswith("error: ")]
    return problems or [line for line in errors if line][-1:]


def _import_path() -> str:
    return os.pathsep.join(folder or os.getcwd() for folder in sys.path)


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):
            stream.close()
