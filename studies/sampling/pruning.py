"""Pruners for unpromising search trials.

Early stopping checks whether a trial still improves; a pruner checks whether a trial is worse than other trials. Both
use the trial's best value of the monitored metric so far, which the trial reports after each epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from studies.trials.record import CONFIG
from studies.trials.records import trials_and_records

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
        pruner: ``quantile`` for `QuantilePruner`, ``hyperband`` for Optuna's Hyperband, ``none`` to prune nothing.
            Hyperband stores that a rung was evaluated, but not the decision. So if the process exits before the trial
            is reported as pruned, the trial continues to the next rung.
        share: Quantile of the quantile pruner at the end of the grace period, above 0 and below 1.
        grace: Grace period in epochs, 1 or more; None for the trial's `early_stopping_patience`.
    """

    pruner: PrunerName = PrunerName.QUANTILE
    share: float = 0.6
    grace: int | None = None

    def grace_epochs(self, early_stopping_patience: int) -> int:
        """Return the grace period in epochs for a trial with this early stopping patience."""
        return early_stopping_patience if self.grace is None else self.grace

    def create_pruner(self, early_stopping_patience: int, num_epochs: int) -> BasePruner:
        """Create the pruner for search trials with this default patience and maximum number of epochs."""
        if self.pruner is PrunerName.QUANTILE:
            return QuantilePruner(self)
        if self.pruner is PrunerName.HYPERBAND:
            return _Hyperband(self, early_stopping_patience, num_epochs)
        return NopPruner()


class QuantilePruner(BasePruner):
    """Pruner that compares a trial's best value so far with a quantile of the other trials' best values at that epoch.

    At the end of the grace period the quantile is `Pruning.share`. Then it grows as
    ``1 - (1 - share) (grace / epoch)^2``, since early values of a learning curve say little about its end. With a share
    of 0.6, about 40 % of the trials continue after the grace period, and 10 % after twice as many epochs. A trial is
    pruned only if it is worse by more than its `early_stopping_min_delta`.
    """

    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to prune a trial that has reported its best value so far after each epoch."""
        epoch, grace = trial.last_step, _grace_epochs(trial, self._pruning)
        if epoch is None or epoch < grace:
            return False
        fraction = 1 - (1 - self._pruning.share) * (grace / epoch) ** 2
        threshold = quantile_of_others(study, trial.number, epoch, fraction)
        if threshold is None:
            return False
        best = trial.intermediate_values[epoch]
        is_minimized = study.direction == optuna.study.StudyDirection.MINIMIZE
        behind = best - threshold if is_minimized else threshold - best
        return bool(behind > trial.user_attrs[CONFIG]["early_stopping_min_delta"])


class _Hyperband(HyperbandPruner):
    """Optuna's Hyperband, used only after the grace period of a trial."""

    def __init__(self, pruning: Pruning, early_stopping_patience: int, num_epochs: int) -> None:
        # Explicit limits, because Optuna's estimates of the limits would differ after a restart.
        min_epochs = min(pruning.grace_epochs(early_stopping_patience), num_epochs)
        super().__init__(min_resource=min_epochs, max_resource=num_epochs, reduction_factor=HYPERBAND_REDUCTION)
        self._pruning = pruning

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        epoch = trial.last_step
        return epoch is not None and epoch >= _grace_epochs(trial, self._pruning) and super().prune(study, trial)


def _grace_epochs(trial: FrozenTrial, pruning: Pruning) -> int:
    return pruning.grace or int(trial.user_attrs[CONFIG]["early_stopping_patience"])


def quantile_of_others(study: optuna.Study, number: int, epoch: int, fraction: float) -> float | None:
    """Return a quantile of the other trials' best values so far at an epoch.

    Pruned trials are included, because otherwise the comparison would become stricter with every pruned trial. A trial
    that ended before the epoch is included with its last value, a running trial only if it has reached the epoch.
    Failed trials are ignored; a diverged search trial has the state pruned.

    Args:
        study: The study; it is only read.
        number: The number of the trial to compare.
        epoch: Counted from 1.
        fraction: The quantile as a fraction of the values, counted from the worst value (0.5 for the median), with
            linear interpolation. It is limited to ``1 - 1/n`` for n other trials, because few values do not determine a
            high quantile.

    Returns:
        The quantile, or None if there is no value to compare with.
    """
    others = (_value_at(trial, epoch) for trial, _ in trials_and_records(study) if trial.number != number)
    values = [value for value in others if value is not None]
    values.sort(reverse=study.direction == optuna.study.StudyDirection.MINIMIZE)
    if not values:
        return None
    position = min(fraction, 1 - 1 / len(values)) * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (position - below)


def _value_at(trial: FrozenTrial, epoch: int) -> float | None:
    """Return a trial's best value so far at an epoch; None if the trial has none or is ignored."""
    reports = trial.intermediate_values
    if not reports or trial.state in (TrialState.FAIL, TrialState.WAITING):
        return None
    if epoch in reports:
        return reports[epoch]
    if trial.state == TrialState.RUNNING and max(reports) < epoch:
        return None
    reached = max((step for step in reports if step < epoch), default=None)
    return None if reached is None else reports[reached]
