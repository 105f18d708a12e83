"""The progress of a run: the study's last status, updated with the events of this run's trials."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from search_spaces import Targets, TrainingConfig
from search_spaces.diagnostics.names import is_search_trial_name
from studies import (
    RemainingTime,
    RowState,
    StatusRow,
    StudyStatus,
    TrialKind,
    TrialRecord,
    remaining_seconds,
    remaining_time,
)
from tuner.training.history import EarlyStopping, EpochMetrics

_POLLS_REMEMBERED = 5
_NO_STATUS = StudyStatus("", "", "max", (), None, Targets(), ())


@dataclass
class RunningTrial:
    """A trial that this process or one of its workers is training.

    Attributes:
        row: The trial's row in the status, updated with the trial's events.
        config: The trial's settings.
        batches: The numbers of finished batches and of all batches in the running epoch.
        metrics: The metrics of the last finished epoch; None before the first.
        signal: The state of early stopping after the last finished epoch; None before the first.
        epoch_seconds: The duration of each finished epoch in seconds.
    """

    row: StatusRow
    config: TrainingConfig
    batches: tuple[int, int] = (0, 0)
    metrics: EpochMetrics | None = None
    signal: EarlyStopping | None = None
    epoch_seconds: list[float] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The number of the running epoch, counted from 1."""
        return 1 if self.metrics is None else self.metrics.epoch + 1


class RunProgress:
    """The last status of the study, updated with the events of this run's trials.

    An event is sent after its change is stored in the study, so a status includes the changes of all events received
    before it. It may also include later changes, because events of worker processes arrive late. Events of trials that
    are not running are ignored.

    Attributes:
        own_trials: The trials that this run is training, keyed by number.
        is_polled: Whether a status has been read; until then only the trials of this run are known.
    """

    def __init__(self) -> None:
        self.own_trials: dict[int, RunningTrial] = {}
        self.is_polled = False
        self._polled = _NO_STATUS
        self._stopped: dict[int, StatusRow] = {}  # finished or interrupted since the last poll
        self._workers_at_polls: deque[int] = deque(maxlen=_POLLS_REMEMBERED)
        self._reported: set[int] = set()
        self._to_report: set[int] = set()

    @cached_property
    def status(self) -> StudyStatus:
        """The up-to-date status of the study, without superseded trials."""
        rows = {row.name: row for row in self._polled.current}
        enqueued = 0
        for row in (*self._stopped.values(), *(trial.row for trial in self.own_trials.values())):
            known = rows.get(row.name)
            enqueued += known is None and row.kind is TrialKind.SEARCH
            if known is None or known.number < row.number or (known.number == row.number and not known.has_ended):
                rows[row.name] = row
        search = self._polled.search
        if search is not None:
            search = replace(search, unenqueued=max(0, search.unenqueued - enqueued))
        return replace(self._polled, rows=tuple(sorted(rows.values(), key=lambda row: row.number)), search=search)

    @cached_property
    def remaining_time(self) -> RemainingTime | None:
        """The remaining time of the study; None if too few epochs have been timed."""
        fractions = {row.number: self.epoch_fraction(row) for row in self.status.running}
        return remaining_time(self.status, self.workers, fractions)

    @property
    def workers(self) -> int:
        """The number of workers of the study, including workers between two trials while trials are pending."""
        running = len(self.status.running)
        return max(running, min(max(self._workers_at_polls, default=0), running + self.status.pending))

    def epoch_fraction(self, row: StatusRow) -> float:
        """Return the finished fraction of a trial's running epoch, 0 to 1; 0 for a trial of another process."""
        done, total = self.own_trials[row.number].batches if row.number in self.own_trials else (0, 0)
        return done / total if total else 0.0

    def remaining_seconds(self, row: StatusRow) -> float | None:
        """Return an upper bound of a running trial's remaining time; None until its first epoch has been timed."""
        return remaining_seconds(row, self.epoch_fraction(row))

    def position(self, number: int) -> int:
        """Return the position of a trial in the study, counted from 1."""
        return 1 + sum(row.number < number for row in self.status.rows)

    def trial_started(self, number: int, name: str, config: TrainingConfig) -> None:
        """Add a running trial, or mark a trial of the last status as running."""
        if not self.is_polled:
            monitor, mode = config.early_stopping_monitor, config.early_stopping_mode
            self._polled = replace(self._polled, monitor=monitor, mode=mode)
        row = replace(self._row(number, name), model_name=config.model_name, num_epochs=config.num_epochs)
        self.own_trials[number] = RunningTrial(replace(row, state=RowState.RUNNING), config)
        self._clear_cache()

    def batch(self, number: int, done: int, total: int) -> None:
        """Store the numbers of finished batches and of all batches in a trial's running epoch."""
        if trial := self.own_trials.get(number):
            trial.batches = (done, total)

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Store the metrics and the early stopping state of a trial's finished epoch, and update its row."""
        if trial := self.own_trials.get(number):
            trial.metrics, trial.signal, trial.batches = metrics, signal, (0, trial.batches[1])
            trial.epoch_seconds.append(metrics.epoch_seconds)
            best = signal.best if signal.best is not None and math.isfinite(signal.best) else None
            median = statistics.median(trial.epoch_seconds)
            trial.row = replace(trial.row, epochs=metrics.epoch, best_value=best, epoch_seconds=median)
            self._clear_cache()

    def trial_ended(self, record: TrialRecord) -> None:
        """Show a trial as finished, with the result in its record, until the next poll."""
        trial = self.own_trials.pop(record.number, None)
        row = trial.row if trial else self._row(record.number, record.experiment_name)
        self._stopped[record.number] = _ended_row(row, record)
        self._reported.add(record.number)
        self._clear_cache()

    def trial_interrupted(self, number: int) -> RunningTrial | None:
        """Show a trial as interrupted until the next poll; return the trial, or None if it was not running."""
        trial = self.own_trials.pop(number, None)
        if trial is not None:
            self._stopped[number] = replace(trial.row, state=RowState.INTERRUPTED, worker_pid=None)
            self._clear_cache()
        return trial

    def status_polled(self, status: StudyStatus) -> tuple[int, list[StatusRow]]:
        """Store the study's status; return the number of added trials, and the trials that other processes finished."""
        added = max(0, status.total - self._polled.total) if self.is_polled else 0
        if not self.is_polled:
            self._reported |= {row.number for row in status.rows if row.has_ended}
        if status.counts[RowState.INTERRUPTED] > self._polled.counts[RowState.INTERRUPTED]:
            self._workers_at_polls.clear()  # earlier polls counted a worker that has exited
        self._polled, self.is_polled = status, True
        self._stopped.clear()
        self._clear_cache()
        self._workers_at_polls.append(len(self.status.running))
        return added, self._ended_by_other_processes()

    def _ended_by_other_processes(self) -> list[StatusRow]:
        """Return the finished trials that no event has reported for two polls; own workers' events may arrive late."""
        rows = [row for row in self._polled.rows if row.has_ended]
        unreported = {row.number for row in rows} - self._reported - self.own_trials.keys()
        reported_now = unreported & self._to_report
        self._to_report = unreported - reported_now
        self._reported |= reported_now
        return [row for row in rows if row.number in reported_now]

    def _row(self, number: int, name: str) -> StatusRow:
        kind = TrialKind.SEARCH if is_search_trial_name(name) else TrialKind.PRESET
        new = StatusRow(number, name, kind, RowState.WAITING)
        return next((row for row in self.status.rows if row.number == number), new)

    def _clear_cache(self) -> None:
        """Clear the cached properties."""
        for name in ("status", "remaining_time"):
            self.__dict__.pop(name, None)


def _ended_row(row: StatusRow, record: TrialRecord) -> StatusRow:
    row = replace(row, state=RowState.of(record), ended=datetime.now(), worker_pid=None)
    if (outcome := record.outcome) is None:
        return row
    return replace(
        row,
        epochs=outcome.total_epochs,
        why_ended=outcome.why_ended.value,
        seconds=outcome.training_time_s,
        epoch_seconds=outcome.epoch_seconds_median,
    )
