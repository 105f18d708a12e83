"""Which trials a command works on, and what ends its work early."""

from __future__ import annotations

import time
from dataclasses import dataclass

from studies import TrialKind, TrialRecord


@dataclass(frozen=True)
class TrialFilter:
    """Which of a study's trials a command works on.

    Attributes:
        experiments: Names of presets; None for all that the study has.
        search: Whether search trials too.
    """

    experiments: frozenset[str] | None = None
    search: bool = True

    @property
    def may_gain_trials(self) -> bool:
        """Whether trials that are added to the study later can be among them."""
        return self.search or self.experiments is None

    def holds(self, record: TrialRecord) -> bool:
        """Return whether a trial is one of them."""
        if record.kind is TrialKind.SEARCH:
            return self.search
        return self.experiments is None or record.experiment_name in self.experiments


@dataclass(frozen=True)
class StopConditions:
    """What ends the work before nothing is left.

    Attributes:
        deadline: When, on `time.monotonic`'s clock, the running trial is left after its epoch; None for never.
        until_targets: Whether no further trial is begun once one has met the study's targets.
    """

    deadline: float | None = None
    until_targets: bool = False

    @property
    def timed_out(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline
