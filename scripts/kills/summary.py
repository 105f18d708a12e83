"""What a campaign of kills has shown, in one block."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from harness.kill_points import KILL_POINTS, KillPoint

from kills.campaign import KilledStudy
from kills.schedule import RANDOM_MOMENT, Reference

_NAME_WIDTH = max(len(kill_point.name) for kill_point in KILL_POINTS)


def summary(
    studies: Sequence[KilledStudy], kills: Mapping[str, int], reference: Reference, kill_points: Sequence[KillPoint]
) -> Iterator[str]:
    """Yield the lines of the summary, one of them for each of the boundaries that the studies pass."""
    yield f"{'kills at':{_NAME_WIDTH}} before after"
    for kill_point in kill_points:
        cells = [
            f"{kills[f'{side} {kill_point.name}']:>{len(side)}}" if side in kill_point.sides else " " * len(side)
            for side in ("before", "after")
        ]
        yield " ".join([f"{kill_point.name:{_NAME_WIDTH}}", *cells]).rstrip()
    yield f"{RANDOM_MOMENT + 's':{_NAME_WIDTH}} {kills[RANDOM_MOMENT]:>6}"
    yield ""
    yield from _result_lines(studies, reference)


def _result_lines(studies: Sequence[KilledStudy], reference: Reference) -> Iterator[str]:
    total = {
        name: sum(getattr(study, name) for study in studies)
        for name in ("starts", "lost", "doubled", "epochs_started", "trained_again")
    }
    different = sum(bool(study.problems) for study in studies)
    first = [reference.first_epoch_s, *(wait for study in studies for wait in study.first_epoch_s)]
    resumed = [wait for study in studies for wait in study.resumed_epoch_s]
    yield f"{sum(len(study.kills) for study in studies)} kills, {total['starts']} processes, {len(studies)} studies"
    yield f"trials lost: {total['lost']}, doubled: {total['doubled']}; studies that differ: {different}"
    yield f"  compared bit for bit: {len(reference.snapshot)} items of a study"
    yield f"epochs trained again beyond the one in flight: {total['trained_again']}"
    yield f"  started: {total['epochs_started']}, needed: {reference.epochs * len(studies)}"
    yield "seconds from the start of a process to its first epoch"
    yield f"  new study:    {_spread(first)}"
    yield f"  after a kill: {_spread(resumed)}"


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return f"median {statistics.median(seconds):.2f}, most {max(seconds):.2f} ({len(seconds)} starts)"
