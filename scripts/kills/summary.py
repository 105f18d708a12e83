"""What a campaign of kills has shown, in one block."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from harness.kill_points import KILL_POINTS, KillPoint

from kills.campaign import Reference, Story
from kills.schedule import RANDOM_MOMENT

NAME_WIDTH = max(len(kill_point.name) for kill_point in KILL_POINTS)


def story_line(story: Story) -> str:
    """Return how a study fared, in a line; if badly, with all its problems and where its processes died."""
    how = "DIFFERENT" if story.problems else "equal"
    line = f"{story.name}: {len(story.deaths)} kills, {story.starts} processes, {story.seconds:.0f} s: {how}"
    if not story.problems:
        return line
    return "\n".join([line, *(f"  {problem}" for problem in story.problems), f"  killed: {', '.join(story.deaths)}"])


def summary(
    stories: Sequence[Story], kills: Mapping[str, int], reference: Reference, kill_points: Sequence[KillPoint]
) -> str:
    """Return the summary block, with a line for each of the boundaries that the studies pass."""
    return "\n".join([*_boundary_lines(kills, kill_points), "", *_result_lines(stories, reference)])


def _boundary_lines(kills: Mapping[str, int], kill_points: Sequence[KillPoint]) -> Iterator[str]:
    yield f"{'kills at':{NAME_WIDTH}} before after"
    for kill_point in kill_points:
        cells = [
            f"{kills[f'{side} {kill_point.name}']:>{len(side)}}" if side in kill_point.sides else " " * len(side)
            for side in ("before", "after")
        ]
        yield " ".join([f"{kill_point.name:{NAME_WIDTH}}", *cells]).rstrip()
    yield f"{RANDOM_MOMENT + 's':{NAME_WIDTH}} {kills[RANDOM_MOMENT]:>6}"


def _result_lines(stories: Sequence[Story], reference: Reference) -> Iterator[str]:
    total = Counter[str]()
    for story in stories:
        total.update(
            kills=len(story.deaths),
            processes=story.starts,
            lost=story.lost,
            doubled=story.doubled,
            different=int(bool(story.problems)),
            begun=story.epochs_begun,
            again=story.trained_again,
        )
    needed = reference.epochs * len(stories)
    first = [reference.first_epoch_s, *(wait for story in stories for wait in story.first_epoch_s)]
    resumed = [wait for story in stories for wait in story.resumed_epoch_s]
    yield f"{total['kills']} kills, {total['processes']} processes, {len(stories)} studies"
    yield f"trials lost: {total['lost']}, doubled: {total['doubled']}; studies that differ: {total['different']}"
    yield f"  compared bit for bit: {len(reference.snapshot)} items of a study"
    yield f"epochs trained again beyond the one in flight: {total['again']}"
    yield f"  begun: {total['begun']}, needed: {needed}"
    yield "seconds from the start of a process to its first epoch"
    yield f"  new study:    {_spread(first)}"
    yield f"  after a kill: {_spread(resumed)}"


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return f"median {statistics.median(seconds):.2f}, most {max(seconds):.2f} ({len(seconds)} starts)"
