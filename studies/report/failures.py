"""What went wrong in the trials that failed."""

from __future__ import annotations

from dataclasses import dataclass

from studies.report.formatting import reason_text
from studies.report.snapshot import Snapshot
from studies.trials.record import TrialPhase

MOST_FAILURES = 50
_MOST_CHARACTERS = 500


@dataclass(frozen=True)
class Failure:
    """A trial that failed.

    Attributes:
        number: Its number.
        name: Its name.
        reason: Why it ended.
        epochs: Epochs that it had finished.
        message: The error; "" if none is known.
    """

    number: int
    name: str
    reason: str
    epochs: int
    message: str


def failures(snapshot: Snapshot) -> list[Failure]:
    """Return the failed trials, the latest first."""
    failed = [record for record in snapshot.records.values() if record.phase is TrialPhase.FAILED]
    found = []
    for record in reversed(failed):
        outcome = record.outcome
        if outcome is None:
            found.append(Failure(record.number, record.experiment_name, "ended from outside", 0, ""))
            continue
        message = ": ".join(filter(None, (outcome.error_type, outcome.error_message)))
        short = message if len(message) <= _MOST_CHARACTERS else f"{message[:_MOST_CHARACTERS]} …"
        reason = reason_text(outcome.why_ended.value)
        found.append(Failure(record.number, record.experiment_name, reason, outcome.total_epochs, short))
    return found
