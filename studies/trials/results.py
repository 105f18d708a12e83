"""The comparison of results: with the targets of the study, and with those of other trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from search_spaces.experiments.schema import Targets
from studies.trials.record import TrialOutcome, TrialPhase, TrialRecord, WhyEnded

HIGHER_IS_BETTER = frozenset({"character_accuracy", "sequence_accuracy"})
_FORMATS = {
    "character_accuracy": "{:.4f}",
    "sequence_accuracy": "{:.4f}",
    "training_time_per_epoch": "{:.1f}",
    "convergence_epochs": "{:.0f}",
}


def target_metrics(outcome: TrialOutcome | None) -> dict[str, float | None]:
    """Return the metrics of a trial that can have a target, keyed by the target's name in the configuration file.

    Returns:
        Accuracies, 0 to 1 (0 without an outcome); seconds per epoch and the first converged epoch (None if unknown).
    """
    return {
        "character_accuracy": outcome.best_val_char_accuracy if outcome else 0.0,
        "sequence_accuracy": outcome.best_val_seq_accuracy if outcome else 0.0,
        "training_time_per_epoch": outcome.epoch_seconds_median if outcome else None,
        "convergence_epochs": outcome.converged_epoch if outcome else None,
    }


def metric_text(name: str, value: float | None) -> str:
    """Format a value of `target_metrics` for tables."""
    if value is None:
        return "never" if name == "convergence_epochs" else "-"
    return _FORMATS[name].format(value)


def target_verdicts(outcome: TrialOutcome | None, targets: Targets) -> dict[str, bool]:
    """Return whether a trial met each configured target, keyed by the target's name in the configuration file.

    A trial that did not succeed meets no target.
    """
    succeeded = outcome is not None and outcome.succeeded
    metrics = target_metrics(outcome)
    return {name: succeeded and _is_met(name, metrics[name], target) for name, target in targets if target is not None}


def targets_met(outcome: TrialOutcome | None, targets: Targets) -> bool:
    """Return whether a trial succeeded and met every target; False if no target is configured."""
    if outcome is None or not outcome.succeeded:
        return False
    verdicts = target_verdicts(outcome, targets)
    return bool(verdicts) and all(verdicts.values())


def _is_met(name: str, value: float | None, target: float) -> bool:
    if value is None:
        return False
    return value >= target if name in HIGHER_IS_BETTER else value <= target


class _Numbered(Protocol):
    @property
    def number(self) -> int: ...


T = TypeVar("T", bound=_Numbered)


def by_accuracy(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the completed trials, pruned ones included, best first.

    The trials are sorted by validation character accuracy, then by sequence accuracy, then by trial number.
    """
    return sorted((record for record in records if record.phase is TrialPhase.COMPLETED), key=_accuracies)


def best_records(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the completed trials without pruned ones, in the order of `by_accuracy`."""
    return [record for record in by_accuracy(records) if record.outcome and record.outcome.why_ended != WhyEnded.PRUNED]


def by_value(trials: Iterable[T], value: Callable[[T], float | None], *, maximize: bool) -> list[T]:
    """Return the trials that have a value, best first; with equal values, the lower number comes first.

    Args:
        trials: Trials of any type.
        value: Function that returns a trial's value of the monitored metric, or None.
        maximize: Whether higher values are better.
    """
    sign = -1.0 if maximize else 1.0
    valued = [(sign * found, trial.number, trial) for trial in trials if (found := value(trial)) is not None]
    return [trial for *_, trial in sorted(valued, key=lambda item: item[:2])]


def _accuracies(record: TrialRecord) -> tuple[float, float, int]:
    assert record.outcome is not None, f"trial {record.number} is completed but has no outcome"
    return -record.outcome.best_val_char_accuracy, -record.outcome.best_val_seq_accuracy, record.number
