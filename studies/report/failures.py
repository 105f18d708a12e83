"""The trials that failed, and their errors."""

from __future__ import annotations

from dataclasses import dataclass

from studies.report.formatting import reason_text
from studies.report.snapshot import Snapshot
from studies.trials.record import TrialPhase, TrialRecord

MOST_FAILURES = 50
_MOST_CHARACTERS = 500


@dataclass(frozen=True)
class Failure:
    """A trial that failed.

    Attributes:
        number: Its number.
        name: Its name.
        reason: Why it ended.
        epochs: Number of finished epochs.
        message: The error; "" if none is known.
    """

    number: int
    name: str
    reason: str
    epochs: int
    message: str


def failures(snapshot: Snapshot) -> list[Failure]:
    """Return the failed trials, the latest first."""
    return [_failure(record) for record in snapshot.records.values() if record.phase is TrialPhase.FAILED][::-1]


def _failure(record: TrialRecord) -> Failure:
    outcome = record.outcome
    if outcome is None:
        return Failure(record.number, record.experiment_name, "ended from outside", 0, "")
    message = ": ".join(filter(None, (outcome.error_type, outcome.error_message)))
    if len(message) > _MOST_CHARACTERS:
        message = f"{message[:_MOST_CHARACTERS]} …"
    reason = reason_text(outcome.why_ended.value)
    return Failure(record.number, record.experiment_name, reason, outcome.total_epochs, message)
