"""How far a run is, and how long it may still take, from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from search_spaces import TrainingConfig
from studies import TrialRecord
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics


class RunProgress:
    """What displays show of a run, kept up to date by the events that `Display` hears.

    Attributes:
        total: Experiments of the run.
        ended: How many of them have ended, those of earlier runs included.
        name: The running experiment; empty between two.
        config: Its configuration.
        batches: Batches done and to do in the running epoch.
        metrics: Figures of the last finished epoch.
        early_stopping: What is best so far, and how long ago.
    """

    def __init__(self) -> None:
        """Begin before the run has."""
        self.total = 0
        self.ended = 0
        self.name = ""
        self.config = TrainingConfig()
        self.batches = (0, 0)
        self.metrics: EpochMetrics | None = None
        self.early_stopping: EarlyStopping | None = None
        self._waiting: dict[str, TrainingConfig] = {}
        self._epoch_seconds: list[float] = []
        self._seconds_of_model: dict[str, float] = {}

    @property
    def epoch(self) -> int:
        """Finished epochs of the running experiment."""
        return self.metrics.epoch if self.metrics else 0

    def run_started(self, experiments: Mapping[str, TrainingConfig], finished: Sequence[TrialRecord]) -> None:
        """Take what the run has to do, and how long epochs took in earlier ones."""
        self.total, self.ended = len(experiments), len(finished)
        ended = {record.experiment_name for record in finished}
        self._waiting = {name: config for name, config in experiments.items() if name not in ended}
        for record in finished:
            self._learn(record)

    def trial_started(self, name: str, config: TrainingConfig) -> None:
        """Turn to an experiment."""
        self.name, self.config = name, config
        self.batches, self.metrics, self.early_stopping = (0, 0), None, None
        self._waiting.pop(name, None)
        self._epoch_seconds = []

    def epoch_ended(self, metrics: EpochMetrics, early_stopping: EarlyStopping) -> None:
        """Take an epoch's figures."""
        self.metrics, self.early_stopping, self.batches = metrics, early_stopping, (0, self.batches[1])
        self._epoch_seconds.append(metrics.epoch_seconds)

    def trial_ended(self, record: TrialRecord) -> None:
        """Count an experiment."""
        self.ended += 1
        self.name, self._epoch_seconds = "", []
        self._learn(record)

    def seconds_left(self) -> float | None:
        """Return how long the running experiment takes at most, by its median epoch; None before its first ends."""
        if not self._epoch_seconds:
            return None
        done, of = self.batches
        part = done / of if of else 0.0
        return (self.config.num_epochs - self.epoch - part) * statistics.median(self._epoch_seconds)

    def seconds_left_in_all(self) -> float | None:
        """Return how long the run takes at most; None while it has models of which no epoch was timed."""
        left = self.seconds_left() if self.name else 0.0
        known = self._seconds_of_model | (
            {self.config.model_name: statistics.median(self._epoch_seconds)} if self._epoch_seconds else {}
        )
        if left is None or any(config.model_name not in known for config in self._waiting.values()):
            return None
        return left + sum(config.num_epochs * known[config.model_name] for config in self._waiting.values())

    def _learn(self, record: TrialRecord) -> None:
        if record.outcome is not None and record.outcome.epoch_seconds_median is not None:
            self._seconds_of_model[record.training_config.model_name] = record.outcome.epoch_seconds_median


def clock(seconds: float) -> str:
    """Return seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
