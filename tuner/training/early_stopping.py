"""The signal of a training: what is best so far, and has it stopped improving?"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import TrainingConfig


@dataclass
class EarlyStopping:
    """Watches one metric over the epochs.

    `best` is the best value of all epochs, however small the step; patience counts against the last value that
    beat its forerunner by more than `min_delta`, so a creeping gain does not keep a training alive.

    Attributes:
        mode: ``max`` if higher is better, ``min`` if lower is.
        min_delta: What an improvement must exceed to reset the patience, 0 or more.
        patience: Epochs without such an improvement after which training stops, 1 or more.
        best: Best value so far; None before the first epoch.
        best_epoch: Epoch (1-based) of `best`, the first of equals; 0 before the first epoch.
        waited: Epochs since the last improvement by more than `min_delta`.
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
        """Begin to watch a training of this configuration."""
        return cls(config.early_stopping_mode, config.early_stopping_min_delta, config.early_stopping_patience)

    def update(self, epoch: int, value: float) -> bool:
        """Take an epoch's (1-based) value; return whether it is the best so far."""
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
        """Whether `patience` epochs have passed without an improvement."""
        return self.waited >= self.patience

    def _gain(self, value: float, other: float) -> float:
        return value - other if self.mode == "max" else other - value
