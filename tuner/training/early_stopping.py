"""Early stopping: tracks the best epoch and whether the monitored metric still improves."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import TrainingConfig


@dataclass
class EarlyStopping:
    """The state of early stopping on one monitored metric.

    `best` changes at every improvement, however small. The patience restarts only at a value that is better by more
    than `min_delta` than the value of the last restart, so that tiny improvements do not prolong the training.

    Attributes:
        mode: ``max`` if higher is better, ``min`` if lower is.
        min_delta: An improvement must be larger than this to reset the patience; 0 or more.
        patience: Number of epochs without such an improvement after which training stops, 1 or more.
        best: Best value so far; None before the first epoch.
        best_epoch: First epoch (1-based) with the value `best`; 0 before the first epoch.
        waited: Number of epochs since the patience last restarted.
    """

    mode: str
    min_delta: float
    patience: int
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    _reference: float | None = None

    @classmethod
    def of(cls, config: TrainingConfig) -> EarlyStopping:
        """Create the initial state for a configuration."""
        return cls(config.early_stopping_mode, config.early_stopping_min_delta, config.early_stopping_patience)

    def update(self, epoch: int, value: float) -> bool:
        """Record the monitored value of an epoch (1-based); return whether the value is the best so far."""
        if self._reference is None or self._gain(value, self._reference) > self.min_delta:
            self._reference, self.waited = value, 0
        else:
            self.waited += 1
        if self.best is not None and self._gain(value, self.best) <= 0:
            return False
        self.best, self.best_epoch = value, epoch
        return True

    @property
    def should_stop(self) -> bool:
        """Whether `patience` epochs have passed without an improvement by more than `min_delta`."""
        return self.waited >= self.patience

    def _gain(self, value: float, other: float) -> float:
        return value - other if self.mode == "max" else other - value
