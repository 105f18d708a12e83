"""Is a trial hopeless against the others? The second question of an epoch; early stopping asks the first.

Both questions look at one signal: the best value of the monitored metric so far, which is what trials report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.trial import FrozenTrial, Trial, TrialState

from studies.trials.records import own_trials

HYPERBAND_REDUCTION = 3


class PrunerName(StrEnum):
    """Which rule ends hopeless search trials."""

    QUANTILE = "quantile"
    HYPERBAND = "hyperband"
    NONE = "none"


@dataclass(frozen=True)
class Pruning:
    """When a search trial ends because of the others.

    Attributes:
        pruner: ``quantile`` compares with what others had reached at the same epoch, ``hyperband`` is Optuna's,
            ``none`` prunes nothing. Optuna notes that Hyperband was asked, not what it said, so a trial whose process
            dies between that verdict and its end goes on to the next rung.
        share: For ``quantile``: the share of the others, above 0 and below 1, that a trial must keep up with at the end
            of its grace. It grows from there, see `share_at`.
        grace: Epochs before the first comparison, 1 or more; None for the trial's `early_stopping_patience`, the grace
            that early stopping itself gives.
    """

    pruner: PrunerName = PrunerName.QUANTILE
    share: float = 0.6
    grace: int | None = None

    def grace_epochs(self, early_stopping_patience: int) -> int:
        """Return the epochs before the first comparison, for a trial of this patience."""
        return early_stopping_patience if self.grace is None else self.grace

    def share_at(self, epoch: int, grace: int) -> float:
        """Return the share of the others that a trial must keep up with at an epoch, from the end of its grace on.

        Early on, curves tell little of where they will end, later much, so ever fewer trials may go on: a part of
        ``(1 - share) (grace / epoch)^2``. With 0.6 that is 40 % when the grace ends, and 10 % after twice as long.
        """
        return 1 - (1 - self.share) * (grace / epoch) ** 2

    def optuna_pruner(self, early_stopping_patience: int, num_epochs: int) -> BasePruner:
        """Return the pruner that Optuna's own rules need; one that does nothing for ours.

        Both limits are given: Optuna's estimates of them would differ after a restart.
        """
        if self.pruner is not PrunerName.HYPERBAND:
            return NopPruner()
        grace = min(self.grace_epochs(early_stopping_patience), num_epochs)
        return HyperbandPruner(min_resource=grace, max_resource=num_epochs, reduction_factor=HYPERBAND_REDUCTION)

    def should_prune(self, trial: Trial, epoch: int, patience: int, is_worse_than: Callable[[float], bool]) -> bool:
        """Return whether a trial had better end.

        Args:
            trial: A running trial that has reported its best so far at `epoch`.
            epoch: The epoch just finished, counted from 1.
            patience: The trial's `early_stopping_patience`.
            is_worse_than: Whether the trial's best so far is worse than a value, by more than its `min_delta`.
        """
        grace = self.grace_epochs(patience)
        if self.pruner is PrunerName.NONE or epoch < grace:
            return False
        if self.pruner is PrunerName.HYPERBAND:
            return trial.should_prune()
        rival = value_to_keep_up_with(trial.study, trial.number, epoch, self.share_at(epoch, grace))
        return rival is not None and is_worse_than(rival)


def value_to_keep_up_with(study: optuna.Study, number: int, epoch: int, share: float) -> float | None:
    """Return the best-so-far value at an epoch that a share of the other trials has not surpassed.

    All others count: pruned ones too, since a comparison with the completed alone gets stricter with every trial that
    it ends, and those that ended earlier with their last value. Running ones count once they have reached the epoch;
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
    others = (trial for trial in own_trials(study) if trial.number != number)
    values = sorted(_values_at(others, epoch), reverse=study.direction == optuna.study.StudyDirection.MINIMIZE)
    if not values:
        return None
    position = min(share, 1 - 1 / len(values)) * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (position - below)


def _values_at(trials: Iterable[FrozenTrial], epoch: int) -> Iterable[float]:
    for trial in trials:
        value = _value_at(trial, epoch)
        if value is not None:
            yield value


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
