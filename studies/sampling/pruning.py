"""Rules that prune unpromising search trials.

Early stopping asks whether a trial has stopped improving; a pruner asks whether it is worse than the others. Both look
at one signal: the best value of the monitored metric so far, which is what trials report after each epoch.
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
    """Which rule prunes search trials."""

    QUANTILE = "quantile"
    HYPERBAND = "hyperband"
    NONE = "none"


@dataclass(frozen=True)
class Pruning:
    """How a study prunes search trials.

    Attributes:
        pruner: ``quantile`` compares with what others had reached at the same epoch, ``hyperband`` is Optuna's,
            ``none`` prunes nothing. Optuna stores that Hyperband was asked, not its answer, so a trial whose process
            exits between that answer and its end continues to the next rung.
        share: See `QuantilePruner`; above 0 and below 1.
        grace: Epochs before the first comparison, 1 or more; None for the trial's `early_stopping_patience`, the grace
            that early stopping itself gives.
    """

    pruner: PrunerName = PrunerName.QUANTILE
    share: float = 0.6
    grace: int | None = None

    def grace_epochs(self, early_stopping_patience: int) -> int:
        """Return the epochs before the first comparison, for a trial of this patience."""
        return early_stopping_patience if self.grace is None else self.grace

    def create_pruner(self, early_stopping_patience: int, num_epochs: int) -> BasePruner:
        """Return the pruner, for search trials that by default have this patience and number of epochs."""
        if self.pruner is PrunerName.QUANTILE:
            return QuantilePruner(self)
        if self.pruner is PrunerName.HYPERBAND:
            return _Hyperband(self, early_stopping_patience, num_epochs)
        return NopPruner()


class QuantilePruner(BasePruner):
    """Prunes a trial whose best so far is worse than that of a share of the other trials at the same epoch.

    At the end of its grace period a trial must keep up with the share of the others that `Pruning.share` says. From
    there the share grows as ``1 - (1 - share) (grace / epoch)^2``, since early values of a curve say little about its
    end. With 0.6 the pruner lets 40 % of the trials continue when their grace ends, and 10 % after twice as long. A
    trial is worse if it is so by more than its `early_stopping_min_delta`.
    """

    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial, which has reported its best so far after each epoch, should be pruned."""
        epoch, grace = trial.last_step, _grace_epochs(trial, self._pruning)
        if epoch is None or epoch < grace:
            return False
        share = 1 - (1 - self._pruning.share) * (grace / epoch) ** 2
        threshold = quantile_of_others(study, trial.number, epoch, share)
        if threshold is None:
            return False
        best = trial.intermediate_values[epoch]
        is_minimized = study.direction == optuna.study.StudyDirection.MINIMIZE
        behind = best - threshold if is_minimized else threshold - best
        return bool(behind > trial.user_attrs[CONFIG]["early_stopping_min_delta"])


class _Hyperband(HyperbandPruner):
    """Optuna's Hyperband, which is not asked before the end of a trial's own grace period."""

    def __init__(self, pruning: Pruning, early_stopping_patience: int, num_epochs: int) -> None:
        # Both limits are given: Optuna's estimates of them would differ after a restart.
        least = min(pruning.grace_epochs(early_stopping_patience), num_epochs)
        super().__init__(min_resource=least, max_resource=num_epochs, reduction_factor=HYPERBAND_REDUCTION)
        self._pruning = pruning

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        epoch = trial.last_step
        return epoch is not None and epoch >= _grace_epochs(trial, self._pruning) and super().prune(study, trial)


def _grace_epochs(trial: FrozenTrial, pruning: Pruning) -> int:
    return pruning.grace or int(trial.user_attrs[CONFIG]["early_stopping_patience"])


def quantile_of_others(study: optuna.Study, number: int, epoch: int, share: float) -> float | None:
    """Return the best-so-far value at an epoch that a share of the other trials has not surpassed.

    All others count: pruned ones too, since a comparison with the completed alone gets stricter with every trial that
    it prunes, and those that ended earlier with their last value. Running ones count once they have reached the epoch;
    failed ones say nothing about their settings. (A search trial that diverged is a pruned one.)

    Args:
        study: The study; it is only read.
        number: The trial that is compared.
        epoch: Counted from 1.
        share: Which quantile, from the worst value up: 0.5 for the median. Between two values in proportion. Of n
            others it is ``1 - 1/n`` at most: few cannot say what the best few per cent are.

    Returns:
        The value, or None if there is nothing to compare with.
    """
    others = (_value_at(trial, epoch) for trial, _ in trials_and_records(study) if trial.number != number)
    values = [value for value in others if value is not None]
    values.sort(reverse=study.direction == optuna.study.StudyDirection.MINIMIZE)
    if not values:
        return None
    position = min(share, 1 - 1 / len(values)) * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (position - below)


def _value_at(trial: FrozenTrial, epoch: int) -> float | None:
    """Return what a trial had reached at an epoch, or None if it does not count (yet)."""
    reports = trial.intermediate_values
    if not reports or trial.state in (TrialState.FAIL, TrialState.WAITING):
        return None
    if epoch in reports:
        return reports[epoch]
    if trial.state == TrialState.RUNNING and max(reports) < epoch:
        return None
    reached = max((step for step in reports if step < epoch), default=None)
    return None if reached is None else reports[reached]
