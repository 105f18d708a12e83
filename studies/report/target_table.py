"""The table of targets: the number and names of the trials that met each target, and the best value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from search_spaces.diagnostics.plural import listed
from studies.report.formatting import NOTHING
from studies.report.snapshot import Snapshot
from studies.trials.record import TrialOutcome
from studies.trials.records import without_superseded
from studies.trials.targets import HIGHER_IS_BETTER, metric_text, target_metrics, target_verdicts

_NAMES_SHOWN = 4


@dataclass(frozen=True)
class TargetRow:
    """A target of the study.

    Attributes:
        goal: The target as a condition, for example ``char >= 0.9``.
        met: Number of finished trials that met the target.
        ended: Number of finished trials.
        best: The best value and the name of its trial; a dash if no trial has a value.
        names: Names of the trials that met the target.
    """

    goal: str
    met: int
    ended: int
    best: str
    names: str


def target_rows(snapshot: Snapshot) -> Iterator[TargetRow]:
    """Yield one row per target that is set; failed trials count as finished, but meet no target."""
    latest = without_superseded(list(snapshot.records.values()))
    ended = {record.experiment_name: record.outcome for record in latest if record.outcome is not None}
    succeeded = {name: outcome for name, outcome in ended.items() if outcome.succeeded}
    targets = snapshot.status.targets
    verdicts = {name: target_verdicts(outcome, targets) for name, outcome in succeeded.items()}
    for target, goal in targets.goals().items():
        met = [name for name, found in verdicts.items() if found[target]]
        yield TargetRow(goal, len(met), len(ended), _best(succeeded, target), listed(met, _NAMES_SHOWN))


def _best(outcomes: Mapping[str, TrialOutcome], target: str) -> str:
    values = {name: target_metrics(outcome)[target] for name, outcome in outcomes.items()}
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return NOTHING
    # With equal values, max and min return the first trial, which has the lower number.
    best = (max if target in HIGHER_IS_BETTER else min)(known, key=lambda name: known[name])
    return f"{metric_text(target, known[best])}, {best}"
