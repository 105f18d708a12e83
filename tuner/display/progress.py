"""How far a run is, and how long it may still take, from what was measured."""

from __future__ import annotations

import heapq
import math
import re
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from search_spaces import TrainingConfig
from studies import TrialPhase, TrialRecord
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_LAST_ENDINGS = 3


class Leader(NamedTuple):
    """The trial that is ahead.

    Attributes:
        name: Its name.
        value: Its best value of the monitored metric.
    """

    name: str
    value: float


class Estimate(NamedTuple):
    """How long something takes.

    Attributes:
        seconds: So long.
        at_most: Whether it can only be shorter; otherwise also longer.
    """

    seconds: float
    at_most: bool


@dataclass
class RunningTrial:
    """A trial that is being trained.

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
    def epoch(self) -> int:
        """Finished epochs."""
        return self.metrics.epoch if self.metrics else 0

    @property
    def epochs_done(self) -> float:
        """Finished epochs and the part of the running one that is done."""
        done, of = self.batches
        return self.epoch + (done / of if of else 0.0)

    @property
    def best(self) -> float | None:
        """The best value of the monitored metric so far; None before the first epoch ends."""
        return self.signal.best if self.signal else None

    def seconds_left(self) -> float | None:
        """Return how long it takes at most, by its median epoch; None before its first ends."""
        if not self.epoch_seconds:
            return None
        return max(0.0, self.config.num_epochs - self.epochs_done) * statistics.median(self.epoch_seconds)


class RunProgress:
    """What displays show of a run, kept up to date by the events that `Display` hears.

    Events of a trial that is not running are ignored: the last words of a worker may arrive late.

    Attributes:
        running: The trials that are being trained, by number.
        endings: The trials that ended last in this run, the latest first.
        monitor: The metric that the study goes by.
        mode: ``max`` if higher is better, ``min`` if lower is.
    """

    def __init__(self) -> None:
        """Begin before the run has."""
        self.running: dict[int, RunningTrial] = {}
        self.endings: deque[TrialRecord] = deque(maxlen=_LAST_ENDINGS)
        self.monitor = TrainingConfig().early_stopping_monitor
        self.mode = TrainingConfig().early_stopping_mode
        self._waiting: dict[str, TrainingConfig | None] = {}
        self._ended: dict[str, float | None] = {}  # the best monitored value of those that completed
        self._trial_seconds: list[float] = []
        self._epoch_of_model: dict[str, Estimate] = {}

    @property
    def ended(self) -> int:
        """How many trials have ended, those of earlier runs included."""
        return len(self._ended)

    @property
    def waiting(self) -> int:
        """How many trials nobody has begun, or whose worker died."""
        return len(self._waiting)

    @property
    def total(self) -> int:
        """All trials of the run, those that came later included."""
        return self.ended + self.waiting + len(self.running)

    @property
    def best(self) -> Leader | None:
        """The best of the completed and the running trials, as far as their value of the metric is known.

        What ended in an earlier run left its accuracies; by another metric it does not take part.
        """
        values = self._ended | {trial.name: trial.best for trial in self.running.values()}
        known = [Leader(name, value) for name, value in values.items() if value is not None and math.isfinite(value)]
        choose = max if self.mode == "max" else min
        return choose(known, key=lambda leader: leader.value) if known else None

    def run_started(self, todo: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """Take what the run has to do, and how long it took in earlier ones."""
        for config in [*todo.values(), *(record.training_config for record in finished)]:
            self._learn_terms(config)
        ended = {record.experiment_name for record in finished}
        self._waiting = {name: config for name, config in todo.items() if name not in ended}
        for record in finished:
            self._learn(record, None)

    def trial_started(self, number: int, name: str, config: TrainingConfig) -> RunningTrial:
        """Count a trial among the running ones, known before or not; return it."""
        self._learn_terms(config)
        self._waiting.pop(name, None)
        self._ended.pop(name, None)  # one that failed is tried again
        self.running[number] = trial = RunningTrial(name, config)
        return trial

    def batch(self, number: int, done: int, total: int) -> None:
        """Take how far a trial's epoch is."""
        if trial := self.running.get(number):
            trial.batches = (done, total)

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Take an epoch's figures."""
        if trial := self.running.get(number):
            trial.metrics, trial.signal, trial.batches = metrics, signal, (0, trial.batches[1])
            trial.epoch_seconds.append(metrics.epoch_seconds)

    def trial_ended(self, record: TrialRecord) -> None:
        """Count a trial among the ended ones."""
        trial = self.running.pop(record.number, None)
        self._waiting.pop(record.experiment_name, None)  # it may end before it has begun to train
        self.endings.appendleft(record)
        self._learn(record, trial)

    def trial_lost(self, number: int) -> RunningTrial | None:
        """Let a trial wait again; return it, or None if it was not running."""
        trial = self.running.pop(number, None)
        if trial is not None:
            self._waiting = {trial.name: trial.config, **self._waiting}
        return trial

    def time_left(self) -> Estimate | None:
        """Return how long the whole run takes if no worker comes or goes; None while too little was timed.

        Waiting trials are dealt out in their order to the worker that is free first. A preset counts with all its
        epochs, timed on another trial of its model; a search trial whose settings are open, with the mean of the
        trials that ended.
        """
        epochs = self._epoch_of_model | {
            trial.config.model_name: Estimate(statistics.median(trial.epoch_seconds), not is_search(trial.name))
            for trial in self.running.values()
            if trial.epoch_seconds
        }
        running = [self._left(trial, epochs) for trial in self.running.values()]
        waiting = [self._cost(name, config, epochs) for name, config in self._waiting.items()]
        known = [estimate for estimate in (*running, *waiting) if estimate is not None]
        if len(known) < len(running) + len(waiting):
            return None
        seconds = [estimate.seconds for estimate in known]
        split = len(running)
        return Estimate(
            _makespan(seconds[:split] or [0.0], seconds[split:]), all(estimate.at_most for estimate in known)
        )

    def _left(self, trial: RunningTrial, epochs: Mapping[str, Estimate]) -> Estimate | None:
        seconds = trial.seconds_left()
        return self._cost(trial.name, trial.config, epochs) if seconds is None else Estimate(seconds, True)

    def _cost(self, name: str, config: TrainingConfig | None, epochs: Mapping[str, Estimate]) -> Estimate | None:
        """Return how long a trial takes of which no epoch was timed."""
        if config is not None and (epoch := epochs.get(config.model_name)) is not None:
            # The settings of search trials differ too much for one to bound another.
            return Estimate(config.num_epochs * epoch.seconds, epoch.at_most and not is_search(name))
        if is_search(name) and self._trial_seconds:
            return Estimate(statistics.mean(self._trial_seconds), False)
        return None

    def _learn_terms(self, config: TrainingConfig | None) -> None:
        if config is not None:
            self.monitor, self.mode = config.early_stopping_monitor, config.early_stopping_mode

    def _learn(self, record: TrialRecord, trial: RunningTrial | None) -> None:
        completed = record.phase is TrialPhase.COMPLETED
        self._ended[record.experiment_name] = self._value(record, trial) if completed else None
        outcome = record.outcome
        if outcome is not None and outcome.epoch_seconds_median is not None:
            epoch = Estimate(outcome.epoch_seconds_median, not is_search(record.experiment_name))
            self._epoch_of_model[record.training_config.model_name] = epoch
            self._trial_seconds.append(outcome.training_time_s)

    def _value(self, record: TrialRecord, trial: RunningTrial | None) -> float | None:
        if trial is not None and trial.best is not None:
            return trial.best
        value: float | None = getattr(record.outcome, f"best_{self.monitor}", None)
        return value


def is_search(name: str) -> bool:
    """Return whether a trial of this name is one of the open search."""
    return re.fullmatch(r"search_[0-9]{4,}", name) is not None


def clock(seconds: float) -> str:
    """Return seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _makespan(workers: Sequence[float], tasks: Iterable[float]) -> float:
    """Return when the last worker is done, if each in turn that is free first takes the next task."""
    free_at = list(workers)
    heapq.heapify(free_at)
    for seconds in tasks:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)
