"""The supervisor of a command's worker processes: it starts, watches and stops them, and replaces killed ones."""

from __future__ import annotations

import contextlib
import queue
import signal
from typing import TYPE_CHECKING

from search_spaces import ConfigurationError, ExperimentFailedError, TrainingConfig
from studies import TrialRecord
from tuner.display.events import Display, replay
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.status_poller import POLL_ERRORS, StatusPoller
from tuner.session.trial_selection import may_start, trials_to_start
from tuner.signals import raise_if_requested, signal_text
from tuner.workers.base import NODE_LOST, Lines, Worker, end_workers
from tuner.workers.orders import TRIALS_PENDING, WorkerOrders
from tuner.workers.process import WorkerProcess

if TYPE_CHECKING:
    from tuner.workers.ray_cluster import RayCluster

_POLL_S = 0.2
# Stop replacing a worker after this many were killed in a row before they started a trial.
_MAX_FAILED_STARTS = 3
# Signals that end a process that runs out of memory, unless the kernel ends the process by SIGKILL.
_MEMORY_SIGNALS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT})
_INVALID_INPUT = 2  # exit code of a worker whose standard error lists problems that the user can fix


class _Tracker(Display):
    """A display that tracks which trial a worker trains and whether a trial has just finished."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.has_finished = False

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, resumed: bool) -> None:
        self._worker.running = number
        self._worker.failed_starts = 0

    def trial_ended(self, record: TrialRecord) -> None:
        self._worker.running = None
        self.has_finished = True

    def trial_interrupted(self, number: int) -> None:
        self._worker.running = None
        self._worker.interrupted.add(number)


def work_in_processes(
    session: Session,
    trial_filter: TrialFilter,
    stop_conditions: StopConditions,
    max_workers: int,
    threads: int,
    poller: StatusPoller,
    cluster: RayCluster | None,
) -> bool:
    """Train the study's pending trials in parallel workers; return when all workers have exited.

    At first, one worker starts for each trial that can start now, but at least one and at most `max_workers`.

    A killed worker is replaced, and another worker takes over its trial. More workers start when matching trials are
    added.

    Args:
        session: The opened study; its display shows the workers' events.
        trial_filter: The trials to train.
        stop_conditions: When to stop early.
        max_workers: The largest number of workers.
        threads: The number of PyTorch threads of each worker.
        poller: Updates the display.
        cluster: Starts the workers; None starts them on this machine.

    Returns:
        Whether a worker has exited because no trial could be claimed; False if all were stopped by signals.

    Raises:
        ConfigurationError: Workers exited because of problems that the user can fix, and trials are pending.
        ExperimentFailedError: Trials are pending, and workers exited because of failed trials or other problems.
    """
    supervisor = _Supervisor(session, trial_filter, stop_conditions, max_workers, threads, poller, cluster)
    try:
        return supervisor.watch()
    finally:
        supervisor.stop()


class _Supervisor:
    def __init__(
        self,
        session: Session,
        trial_filter: TrialFilter,
        stop_conditions: StopConditions,
        max_workers: int,
        threads: int,
        poller: StatusPoller,
        cluster: RayCluster | None,
    ) -> None:
        self._session = session
        self._trial_filter = trial_filter
        self._stop_conditions = stop_conditions
        self._max_workers = max_workers
        self._threads = threads
        self._display = session.context.display
        self._poller = poller
        self._cluster = cluster
        self._workers: list[Worker] = []
        self._lines: Lines = queue.SimpleQueue()
        self._problems: list[str] = []
        self._user_can_fix = True
        self._stderr_texts: list[str] = []
        self._succeeded = False

    def start(self, failed_starts: int = 0) -> None:
        """Start a worker process.

        Args:
            failed_starts: The number of its predecessors in a row that were killed before they started a trial.
        """
        start = WorkerProcess if self._cluster is None else self._cluster.start
        self._workers.append(start(self._orders(), self._lines, failed_starts=failed_starts))

    def watch(self) -> bool:
        """Start workers; show their events and the study's status until all exit; return whether one succeeded."""
        for _ in range(min(self._max_workers, max(1, self._startable_trials()))):
            self.start()
        while self._workers:
            raise_if_requested()
            if self._poller.is_due:
                self._poller.poll()
                self._start_if_needed()
            if self._cluster is not None:
                self._cluster.poll()
            try:
                worker, line = self._lines.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if line is None:
                self._remove(worker)
            elif line == NODE_LOST:
                self._lose_trial(worker)
                worker.running = None
            else:
                self._show(worker, line)
        if self._problems and not (self._succeeded and self._startable_trials() == 0):
            raise self._error()
        return self._succeeded

    def stop(self) -> None:
        """Stop all workers; kill those that do not exit in time."""
        end_workers(self._workers)

    def _start_if_needed(self) -> None:
        # Each worker that is starting or between two trials will claim a trial.
        idle = sum(worker.running is None for worker in self._workers)
        if len(self._workers) < self._max_workers and self._startable_trials() > idle:
            self.start()

    def _startable_trials(self) -> int:
        """Return the number of trials that workers may start now."""
        with contextlib.suppress(*POLL_ERRORS):
            if may_start(self._session, self._stop_conditions):
                return trials_to_start(self._session, self._trial_filter)
        return 0

    def _show(self, worker: Worker, line: str) -> None:
        with contextlib.suppress(ValueError):  # a process may be killed while it writes a line
            tracker = _Tracker(worker)
            replay(line, tracker)
            replay(line, self._display)
            if tracker.has_finished:
                self._poller.poll_after_trial()
                self._start_if_needed()

    def _remove(self, worker: Worker) -> None:
        """Remove a worker that has exited; replace it if it was killed."""
        code = worker.wait()
        worker.close()
        self._workers.remove(worker)
        if worker.running is not None:
            self._lose_trial(worker)
        skipped = worker.interrupted if code == TRIALS_PENDING else set()
        if code == 0 or skipped:
            self._succeeded = True
            self._trial_filter.skipped.update(skipped)
        elif code < 0 and (worker.running is not None or worker.failed_starts < _MAX_FAILED_STARTS):
            reason = ", possibly out of memory" if -code in _MEMORY_SIGNALS else ""
            self._display.note(f"a worker was killed by {signal_text(-code)}{reason}; a new worker replaces it")
            self.start(worker.failed_starts + (worker.running is None))
        else:
            self._max_workers -= 1  # a replacement would most likely exit for the same reason
            self._report_exit(worker, code)

    def _lose_trial(self, worker: Worker) -> None:
        """Show the trial of a lost worker as interrupted, unless another worker has taken over the trial."""
        others = {other.running for other in self._workers if other is not worker}
        if worker.running is not None and worker.running not in others:
            self._display.worker_lost(worker.running)

    def _report_exit(self, worker: Worker, code: int) -> None:
        """Report why a worker that is not replaced has exited."""
        if code < 0:
            self._problems.append(
                f"worker processes were killed by {signal_text(-code)} before they started a trial; look for the "
                "cause in the system log, remove it, then run `khmer-tuner resume`"
            )
        elif code > 128:
            self._display.note(f"a worker was stopped by {signal_text(code - 128)}")
        else:
            unknown = f"a worker process exited with code {code} without a message; run `khmer-tuner resume` to retry"
            problems = worker.problems or [unknown]
            self._problems += problems
            self._user_can_fix &= code == _INVALID_INPUT
            self._stderr_texts.append(worker.stderr_text)
            self._display.note(f"worker error: {problems[0]}")

    def _error(self) -> Exception:
        problems = list(dict.fromkeys(self._problems))
        error = ConfigurationError(problems) if self._user_can_fix else ExperimentFailedError("; ".join(problems))
        for text in dict.fromkeys(self._stderr_texts):  # includes tracebacks, for --debug
            error.add_note(f"in a worker process:\n{text}")
        return error

    def _orders(self) -> WorkerOrders:
        context = self._session.context
        return WorkerOrders(
            output_dir=str(context.folder.path),
            study=self._session.study.study_name,
            storage=self._session.storage_url,
            stop_token=self._session.stop_token,
            device=context.device,
            metadata=str(context.cache.metadata_path),
            experiments=context.experiments,
            trial_filter=self._trial_filter,
            stop_conditions=self._stop_conditions,
            threads=self._threads,
        )
