"""Several worker processes for one command: begun, watched, shown, replaced when they die, ended with this process."""

from __future__ import annotations

import contextlib
import queue
import time
from dataclasses import asdict
from typing import Any

import torch

from search_spaces import ConfigurationError, TrainingConfig
from studies import TrialRecord
from tuner.display import Display
from tuner.display.events import replay
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.status_poller import POLL_ERRORS, StatusPoller
from tuner.session.trial_selection import may_start, trials_to_start
from tuner.signals import raise_if_requested
from tuner.workers.process import WorkerProcess, end_processes, shared_threads

_POLL_S = 0.2
_SECONDS_BETWEEN_LOOKS = 2.0
# A worker that dies before it has begun a trial, again and again, will not live the next time either.
_MAX_FAILED_STARTS = 3
_MENDABLE = 2  # a worker's exit code if what it wrote to standard error are problems that a user can mend


class _Tracker(Display):
    """Notes which trial a worker is at, and whether it has just ended one."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self.ended = False

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, adopted: bool) -> None:
        self._worker.running = number
        self._worker.failed_starts = 0

    def trial_ended(self, record: TrialRecord) -> None:
        self._worker.running = None
        self.ended = True

    def trial_interrupted(self, number: int) -> None:
        self._worker.running = None


def work_in_processes(session: Session, scope: TrialFilter, limits: StopConditions, most: int, trials: int) -> None:
    """Let worker processes train what the study owes; return when all have ended.

    A worker that dies is replaced; its trial is taken up by whoever comes first. When work is added that the scope
    holds, further workers begin.

    Args:
        session: The opened study; its display shows what the workers do.
        scope: Which trials.
        limits: What ends the work early.
        most: Worker processes at a time.
        trials: Trials that are left; no more workers than those begin, and share this process's PyTorch threads.

    Raises:
        ConfigurationError: Workers have ended because of problems that a user can mend, and trials are left that
            nobody trains.
        RuntimeError: The same, and not all problems are such.
    """
    supervisor = _Supervisor(session, scope, limits, most)
    try:
        for threads in shared_threads(torch.get_num_threads(), min(most, trials)):
            supervisor.begin(threads)
        supervisor.watch()
    finally:
        supervisor.stop()


class _Supervisor:
    def __init__(self, session: Session, scope: TrialFilter, limits: StopConditions, most: int) -> None:
        self._session = session
        self._scope = scope
        self._limits = limits
        self._most = most
        self._display = session.context.display
        self._feed = StatusPoller(session, every_s=_SECONDS_BETWEEN_LOOKS)
        self._workers: list[WorkerProcess] = []
        self._lines: queue.SimpleQueue[tuple[WorkerProcess, str | None]] = queue.SimpleQueue()
        self._problems: list[str] = []
        self._mendable = True
        self._last_words: list[str] = []
        self._succeeded = False

    def begin(self, threads: int, failed_starts: int = 0) -> None:
        """Start a worker process."""
        worker = WorkerProcess(self._orders(threads), self._lines, threads=threads, failed_starts=failed_starts)
        self._workers.append(worker)

    def watch(self) -> None:
        """Show what workers do, and how the study stands, until all have ended."""
        while self._workers:
            raise_if_requested()
            if self._feed.is_due:
                self._look()
            try:
                worker, line = self._lines.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if line is None:
                self._end(worker)
            else:
                self._show(worker, line)
        if self._problems and not (self._succeeded and self._trials_left() == 0):
            raise self._error()

    def stop(self) -> None:
        """End all workers: ask first, and kill after a while."""
        end_processes(self._workers)

    def _look(self) -> None:
        """Tell how the study stands, and begin a worker if there is work for one more."""
        self._feed.poll()
        self._begin_if_needed()

    def _begin_if_needed(self) -> None:
        # Those that are between two trials, or just beginning, will take one each.
        idle = sum(worker.running is None for worker in self._workers)
        if len(self._workers) < self._most and self._trials_left() > idle:
            # The others keep the threads that they have, so this one gets no more than its share.
            self.begin(shared_threads(torch.get_num_threads(), self._most)[-1])

    def _trials_left(self) -> int:
        """Return how many trials a worker may begin now."""
        with contextlib.suppress(*POLL_ERRORS):
            if may_start(self._session, self._limits):
                return trials_to_start(self._session, self._scope)
        return 0

    def _show(self, worker: WorkerProcess, line: str) -> None:
        with contextlib.suppress(ValueError):  # the last line of a process that was killed may be half of one
            tracker = _Tracker(worker)
            replay(line, tracker)
            replay(line, self._display)
            if tracker.ended:
                self._feed.poll_after_trial()
                self._begin_if_needed()

    def _end(self, worker: WorkerProcess) -> None:
        """Take leave of a worker whose output has ended; another one takes the place of one that was killed."""
        code = worker.process.wait()
        worker.put_away()
        self._workers.remove(worker)
        if worker.running is not None:
            self._display.worker_lost(worker.running)
        if code == 0:
            self._succeeded = True
        elif code < 0 and (worker.running is not None or worker.failed_starts < _MAX_FAILED_STARTS):
            self._display.note(f"a worker was killed by signal {-code}; another one takes its place")
            self.begin(worker.threads, worker.failed_starts + (worker.running is None))
        else:
            self._most -= 1  # nobody takes its place: another one would end like it
            self._tell_end(worker, code)

    def _tell_end(self, worker: WorkerProcess, code: int) -> None:
        """Tell why a worker ended that nobody replaces."""
        if code < 0:
            self._problems.append(f"worker processes are killed (signal {-code}) before they begin a trial")
        elif code > 128:
            self._display.note(f"a worker was stopped by signal {code - 128}")
        else:
            problems = worker.problems or [f"a worker process ended with exit code {code}"]
            self._problems += problems
            self._mendable &= code == _MENDABLE
            self._last_words.append(worker.last_words)
            self._display.note(f"a worker has ended: {problems[0]}")

    def _error(self) -> Exception:
        problems = list(dict.fromkeys(self._problems))
        error = ConfigurationError(problems) if self._mendable else RuntimeError("; ".join(problems))
        for words in dict.fromkeys(self._last_words):  # tracebacks among them, for --debug
            error.add_note(f"in a worker process:\n{words}")
        return error

    def _orders(self, threads: int) -> dict[str, Any]:
        context = self._session.context
        deadline = self._limits.deadline
        names = self._scope.experiments
        return {
            "output_dir": str(context.folder.path),
            "storage": self._session.storage_url,
            "device": context.device,
            "metadata": str(context.cache.metadata_path),
            "experiments": {name: asdict(config) for name, config in context.experiments.items()},
            "only": None if names is None else sorted(names),
            "search": self._scope.search,
            "seconds": None if deadline is None else max(0.0, deadline - time.monotonic()),
            "until_targets": self._limits.until_targets,
            # A worker that begins late stops as well when this process is asked to.
            "stop_token": self._session.stop_token,
            "threads": threads,
        }
