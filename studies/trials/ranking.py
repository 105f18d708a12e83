"""The two rankings of trials, best first: by validation accuracy, and by the value of the monitored metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from studies.trials.record import TrialPhase, TrialRecord, WhyEnded


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
