"""How far a run and its study are: as the study was seen last, brought up to date by what happens in the run."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from search_spaces import Targets, TrainingConfig
from studies import RemainingTime, RowState, StatusRow, StudyStatus, TrialRecord, remaining_seconds, remaining_time
from tuner.display.status_rows import ended_row, finite, is_search, planned_row
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_LOOKS_REMEMBERED = 5


class News(NamedTuple):
    """What a look at the study has shown that no event of this run tells.

    Attributes:
        added: How many trials were added to the study since the last look.
        ended: The trials that other processes have ended, by number.
    """

    added: int
    ended: tuple[StatusRow, ...]


@dataclass
class RunningTrial:
    """A trial that this run is training.

    Attributes:
        name: Its name.
        config: Its settings.
        batches: Batches done and to do in its running epoch.
        metrics: Figures of its last finished epoch; None before the first.
        signal: What is its best so far, and how long ago.
        epoch_seconds: How long each epoch took.
    """

    name: str
    config: TrainingConfig
    batches: tuple[int, int] = (0, 0)
    metrics: EpochMetrics | None = None
    signal: EarlyStopping | None = None
    epoch_seconds: list[float] = field(default_factory=list)

    @property
    def epoch_share(self) -> float:
        """The part of the running epoch that is done, 0 to 1."""
        done, of = self.batches
        return done / of if of else 0.0


class RunProgress:
    """What displays show of a run and its study, kept up to date by what `Display` hears.

    Events of a trial that is not running are ignored: the last words of a worker may arrive late. A look at the study
    may be older than the events heard before it, so a trial never goes back.

    Attributes:
        own: The trials that this run is training, by number.
    """

    def __init__(self) -> None:
        """Begin before the run has."""
        self.own: dict[int, RunningTrial] = {}
        self._rows: dict[str, StatusRow] = {}
        self._seen: StudyStatus | None = None
        self._start = StudyStatus("", "", "max", (), None, Targets(), ())
        self._at_work: deque[int] = deque(maxlen=_LOOKS_REMEMBERED)
        self._told: set[int] = set()
        self._to_be_told: set[int] = set()

    @cached_property
    def status(self) -> StudyStatus:
        """The study, each preset once."""
        return replace(self._start, rows=tuple(self._rows.values()))

    @cached_property
    def remaining_time(self) -> RemainingTime | None:
        """How long the rest of the study takes; None while too little was timed."""
        shares = {number: trial.epoch_share for number, trial in self.own.items()}
        return remaining_time(self.status, self.workers, shares)

    @property
    def workers(self) -> int:
        """How many processes work on the study; also those that were at work just now, if there is more to do."""
        status = self.status
        running = len(status.running)
        between_trials = max(self._at_work, default=0) - running
        return running + max(0, min(between_trials, status.pending))

    def epoch_share(self, row: StatusRow) -> float:
        """Return the part of a trial's running epoch that is done, 0 to 1, as far as this run knows."""
        trial = self.own.get(row.number)
        return trial.epoch_share if trial else 0.0

    def remaining_seconds(self, row: StatusRow) -> float | None:
        """Return how long a running trial takes at most, by its own epochs; None before one was timed."""
        return remaining_seconds(row, self.epoch_share(row))

    def row(self, name: str) -> StatusRow:
        """Return a trial of the study."""
        return self._rows[name]

    def place(self, number: int) -> int:
        """Return which trial of the study it is, in the order of their numbers, counted from 1."""
        return 1 + sum(0 <= row.number < number for row in self._rows.values())

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """Take what the run has to do, and how long it took in earlier ones."""
        for config in [*planned_trials.values(), *(record.training_config for record in finished)]:
            self._learn_terms(config)
        for name, config in planned_trials.items():
            self._put(planned_row(name, config))
        for record in finished:
            self._end(record)

    def trial_started(self, number: int, name: str, config: TrainingConfig) -> None:
        """Count a trial among the running ones, known before or not."""
        self._learn_terms(config)
        if name not in self._rows:
            self._count_as_enqueued(name)
        self.own[number] = RunningTrial(name, config)
        known = self._rows.get(name)
        again = known is not None and known.number == number
        row = known if known is not None and again else planned_row(name, config)
        began = row.started or datetime.now()
        model, epochs = config.model_name, config.num_epochs
        row = replace(row, number=number, state=RowState.RUNNING, started=began, model_name=model, num_epochs=epochs)
        self._put(row)

    def batch(self, number: int, done: int, total: int) -> None:
        """Take how far a trial's epoch is."""
        if trial := self.own.get(number):
            trial.batches = (done, total)

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Take an epoch's figures."""
        if trial := self.own.get(number):
            trial.metrics, trial.signal, trial.batches = metrics, signal, (0, trial.batches[1])
            trial.epoch_seconds.append(metrics.epoch_seconds)
            median, best = statistics.median(trial.epoch_seconds), finite(signal.best)
            self._put(replace(self._rows[trial.name], epochs=metrics.epoch, best_value=best, epoch_seconds=median))

    def trial_ended(self, record: TrialRecord) -> None:
        """Count a trial among the ended ones."""
        self._end(record)
        self.own.pop(record.number, None)
        self._told.add(record.number)

    def worker_lost(self, number: int) -> RunningTrial | None:
        """Let a trial wait for a worker again; return it, or None if it was not running."""
        trial = self.own.pop(number, None)
        if trial is not None and not (row := self._rows[trial.name]).has_ended:
            self._put(replace(row, state=RowState.INTERRUPTED, worker_pid=None))
        return trial

    def status_polled(self, status: StudyStatus) -> News:
        """Take how the study stands; return what is new in it."""
        before = self._seen
        self._at_work.append(len(self.status.running))
        # What was begun since the look is not in it.
        own = {trial.name: self._rows[trial.name] for trial in self.own.values()}
        self._rows = own | {row.name: self._further(row) for row in status.current}
        self._seen = self._start = status
        self._forget()
        if before is None:
            self._told |= {row.number for row in status.rows if row.has_ended}
            return News(0, ())
        return News(max(0, status.total - before.total), self._ended_elsewhere(status))

    def _ended_elsewhere(self, status: StudyStatus) -> tuple[StatusRow, ...]:
        """Return the trials whose end no event of this run has told between two looks: events may come late."""
        unrecorded_releases = {row.number for row in status.rows if row.has_ended} - self._told - self.own.keys()
        told_now = unrecorded_releases & self._to_be_told
        self._to_be_told = unrecorded_releases - told_now
        self._told |= told_now
        return tuple(row for row in status.rows if row.number in told_now)

    def _put(self, row: StatusRow) -> None:
        self._rows[row.name] = row
        self._forget()

    def _forget(self) -> None:
        """Let what follows from the trials be found anew when it is asked for."""
        for name in ("status", "remaining_time"):
            self.__dict__.pop(name, None)

    def _further(self, seen: StatusRow) -> StatusRow:
        """Return a trial as it was seen, or as events have told it if they are ahead."""
        known = self._rows.get(seen.name)
        if known is None or known.number != seen.number or seen.has_ended:
            return seen
        if known.has_ended:
            return known
        if seen.number in self.own:
            epochs, best = max(known.epochs, seen.epochs), known.best_value
            return replace(known, epochs=epochs, best_value=best, worker_pid=seen.worker_pid)
        return seen

    def _end(self, record: TrialRecord) -> None:
        trial = self.own.get(record.number)
        best = finite(trial.signal.best) if trial is not None and trial.signal is not None else None
        if best is None:
            # By another metric than an accuracy nothing is known before the study is looked at.
            best = getattr(record.outcome, f"best_{self._start.monitor}", None)
        self._put(ended_row(record, best))

    def _learn_terms(self, config: TrainingConfig | None) -> None:
        if config is not None and self._seen is None:
            monitor, mode = config.early_stopping_monitor, config.early_stopping_mode
            self._start = replace(self._start, monitor=monitor, mode=mode)
            self._forget()

    def _count_as_enqueued(self, name: str) -> None:
        """Take a search trial that was enqueued since the last look from those that were to come."""
        search = self._start.search
        if is_search(name) and search is not None and search.unenqueued:
            self._start = replace(self._start, search=replace(search, unenqueued=search.unenqueued - 1))


def clock(seconds: float) -> str:
    """Return seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
