"""Pruners for unpromising search trials.

Early stopping checks whether a trial still improves; a pruner checks whether a trial is worse than other trials. Both
use the trial's best value of the monitored metric so far, which the trial reports after each epoch.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from studies.sampling.visible_history import visible_trials
from studies.trials.record import CONFIG

HYPERBAND_REDUCTION = 3


class PrunerName(StrEnum):
    """The name of a pruner."""

    QUANTILE = "quantile"
    HYPERBAND = "hyperband"
    NONE = "none"


@dataclass(frozen=True)
class Pruning:
    """The pruner of a study's search trials, and its settings.

    Attributes:
        pruner: ``quantile`` for `QuantilePruner`, ``hyperband`` for `HyperbandPruner`, ``none`` to prune nothing.
        prune_share: Quantile of the quantile pruner at the end of the grace period, above 0 and below 1.
        prune_grace: Grace period in epochs, 1 or more; None for the trial's `early_stopping_patience`.
    """

    pruner: PrunerName = PrunerName.QUANTILE
    prune_share: float = 0.6
    prune_grace: int | None = None

    def grace_epochs(self, early_stopping_patience: int) -> int:
        """Return the grace period in epochs for a trial with this early stopping patience."""
        return early_stopping_patience if self.prune_grace is None else self.prune_grace

    def create_pruner(self, early_stopping_patience: int, num_epochs: int, parallelism: int) -> BasePruner:
        """Create the pruner for search trials with this default patience and maximum number of epochs."""
        if self.pruner is PrunerName.QUANTILE:
            return QuantilePruner(self, parallelism)
        if self.pruner is PrunerName.HYPERBAND:
            return HyperbandPruner(self, self.grace_epochs(early_stopping_patience), num_epochs, parallelism)
        return NopPruner()


class QuantilePruner(BasePruner):
    """Pruner that compares a trial's best value so far with a quantile of the other trials' best values at that epoch.

    At the end of the grace period the quantile is `Pruning.prune_share`. Then it grows as
    ``1 - (1 - share) (grace / epoch)^2``, since early values of a learning curve say little about its end. With a share
    of 0.6, about 40 % of the trials continue after the grace period, and 10 % after twice as many epochs. A trial is
    pruned only if it is worse by more than its `early_stopping_min_delta`. The other trials are the visible history.
    """

    def __init__(self, pruning: Pruning, parallelism: int) -> None:
        self._pruning = pruning
        self._parallelism = parallelism

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to prune a trial that has reported its best value so far after each epoch."""
        epoch, grace = trial.last_step, _grace_epochs(trial, self._pruning)
        if epoch is None or epoch < grace:
            return False
        fraction = 1 - (1 - self._pruning.prune_share) * (grace / epoch) ** 2
        visible = [other for other, _ in visible_trials(study, trial.number, self._parallelism)]
        threshold = quantile_at(visible, epoch, fraction, study.direction)
        if threshold is None:
            return False
        best = trial.intermediate_values[epoch]
        behind = best - threshold if study.direction == StudyDirection.MINIMIZE else threshold - best
        return bool(behind > trial.user_attrs[CONFIG]["early_stopping_min_delta"])


class HyperbandPruner(BasePruner):
    """Hyperband with asynchronous successive halving, used after the grace period of a trial.

    Each trial belongs to one bracket. Bracket b compares trials at the epochs ``grace * 3^b``, ``grace * 3^(b + 1)``
    and so on: a trial that is not among the best third of the trials of its bracket at that epoch is pruned. The trials
    are the visible history and the trial itself.

    Unlike Optuna's pruner of the same name, this one stores nothing, so a decision does not depend on running trials
    or on how often it was made. Sources: Li et al., "Hyperband" (JMLR 18, 2018); Li et al., "A System for Massively
    Parallel Hyperparameter Tuning" (MLSys 2020).
    """

    def __init__(self, pruning: Pruning, grace: int, num_epochs: int, parallelism: int) -> None:
        self._pruning = pruning
        self._parallelism = parallelism
        first = min(grace, num_epochs)
        largest = int(math.log(num_epochs / first, HYPERBAND_REDUCTION) + 1e-9)
        self._rungs = [first * HYPERBAND_REDUCTION**power for power in range(largest + 1)]
        # The number of trials per bracket in which all brackets train the same number of epochs.
        sizes = [(largest + 1) * HYPERBAND_REDUCTION**power / (power + 1) for power in range(largest, -1, -1)]
        self._brackets = [bracket for bracket, size in enumerate(sizes) for _ in range(math.ceil(size))]

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to prune a trial that has reported its best value so far after each epoch."""
        epoch, bracket = trial.last_step, self._bracket(trial)
        if epoch is None or epoch not in self._rungs[bracket:] or epoch < _grace_epochs(trial, self._pruning):
            return False
        visible = [other for other, _ in visible_trials(study, trial.number, self._parallelism)]
        values = [
            other.intermediate_values[epoch]
            for other in (*visible, trial)
            if epoch in other.intermediate_values and self._bracket(other) == bracket
        ]
        values.sort(reverse=study.direction == StudyDirection.MAXIMIZE)
        worst_kept = values[max(0, len(values) // HYPERBAND_REDUCTION - 1)]
        own = trial.intermediate_values[epoch]
        return bool(own > worst_kept if study.direction == StudyDirection.MINIMIZE else own < worst_kept)

    def _bracket(self, trial: FrozenTrial) -> int:
        return self._brackets[zlib.crc32(str(trial.number).encode()) % len(self._brackets)]


def _grace_epochs(trial: FrozenTrial, pruning: Pruning) -> int:
    return pruning.prune_grace or int(trial.user_attrs[CONFIG]["early_stopping_patience"])


def quantile_at(trials: Sequence[FrozenTrial], epoch: int, fraction: float, direction: StudyDirection) -> float | None:
    """Return a quantile of finished trials' best values so far at an epoch.

    Pruned trials must be included, because otherwise the comparison would become stricter with every pruned trial. A
    trial that ended before the epoch is included with its last value.

    Args:
        trials: The trials.
        epoch: Counted from 1.
        fraction: The quantile as a fraction of the values, counted from the worst value (0.5 for the median), with
            linear interpolation. It is limited to ``1 - 1/n`` for n trials, because few values do not determine a high
            quantile.
        direction: The study's direction.

    Returns:
        The quantile, or None if there is no value to compare with.
    """
    values = [value for trial in trials if (value := _value_at(trial, epoch)) is not None]
    values.sort(reverse=direction == StudyDirection.MINIMIZE)
    if not values:
        return None
    position = min(fraction, 1 - 1 / len(values)) * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (position - below)


def _value_at(trial: FrozenTrial, epoch: int) -> float | None:
    """Return a trial's best value so far at an epoch; None if the trial has none."""
    reached = max((step for step in trial.intermediate_values if step <= epoch), default=None)
    return None if reached is None else trial.intermediate_values[reached]
