"""Which targets were met, and by whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from studies.report.formatting import NOTHING, counted, listed
from studies.report.snapshot import Snapshot
from studies.trials.record import TrialOutcome
from studies.trials.records import without_superseded
from studies.trials.targets import target_figures, target_verdicts

_NAMES_SHOWN = 4


@dataclass(frozen=True)
class TargetRow:
    """A target of the study.

    Attributes:
        goal: What is asked for.
        met: How many of the ended trials met it.
        ended: How many trials have ended.
        best: The best that a trial has reached, and which one.
        names: Who met it.
    """

    goal: str
    met: int
    ended: int
    best: str
    names: str


# How each target reads, how a figure of it does, and which figure is the best one.
_GOALS = {
    "character_accuracy": "characters ≥ {:g}",
    "sequence_accuracy": "sequences ≥ {:g}",
    "training_time_per_epoch": "an epoch ≤ {:g} s",
    "convergence_epochs": "converged by epoch {:g}",
}
_FIGURES = {
    "character_accuracy": "{:.4f}",
    "sequence_accuracy": "{:.4f}",
    "training_time_per_epoch": "{:.1f} s",
    "convergence_epochs": "epoch {:.0f}",
}
_HIGHER_IS_BETTER = ("character_accuracy", "sequence_accuracy")


def target_rows(snapshot: Snapshot) -> Iterator[TargetRow]:
    """Yield a row for each target that is set; what a trial had reached that then failed meets none."""
    latest = without_superseded(list(snapshot.records.values()))
    ended = {record.number: record.outcome for record in latest if record.outcome is not None}
    succeeded = {number: outcome for number, outcome in ended.items() if outcome.succeeded}
    verdicts = {number: target_verdicts(outcome, snapshot.status.targets) for number, outcome in succeeded.items()}
    for name, limit in snapshot.status.targets:
        if limit is not None:
            met = [number for number, found in verdicts.items() if found[name]]
            names = [snapshot.records[number].experiment_name for number in met]
            yield TargetRow(
                goal=_GOALS[name].format(limit),
                met=len(met),
                ended=len(ended),
                best=_best(snapshot, succeeded, name),
                names=listed(names, _NAMES_SHOWN),
            )


def _best(snapshot: Snapshot, outcomes: Mapping[int, TrialOutcome], name: str) -> str:
    figures = {number: target_figures(outcome)[name] for number, outcome in outcomes.items()}
    known = {number: figure for number, figure in figures.items() if figure is not None}
    if not known:
        return NOTHING
    # Of equals, max and min return the first, which is the lower number.
    best = (max if name in _HIGHER_IS_BETTER else min)(known, key=lambda number: known[number])
    return f"{_FIGURES[name].format(known[best])}, {snapshot.records[best].experiment_name}"


def all_met_text(snapshot: Snapshot) -> str:
    """Return in a sentence who met all targets."""
    met = list(snapshot.status.met_by)
    if not snapshot.outcomes:
        return "No trial has ended yet."
    if not met:
        return "No trial has met all of them."
    return f"{counted(len(met), 'trial')} met all of them: {listed(met, _NAMES_SHOWN)}."
