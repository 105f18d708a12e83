"""What a soak has shown: a line for each study, and one block in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from soak.cycle import Story

_MIB = 2**20


def story_line(story: Story) -> str:
    """Return how a study fared, in a line; if it broke invariants, with each of them and its folder."""
    how = "all invariants hold" if not story.problems else f"{len(story.problems)} INVARIANTS BROKEN"
    kinds = _listed(story.kinds) or "nothing befell it"
    line = f"{story.name}: {kinds}; {story.commands} commands, {story.seconds:.0f} s: {how}"
    return "\n".join([line, *(f"  {story.name}: {problem}" for problem in story.problems)])


def summary(stories: Sequence[Story], memory_bytes: Sequence[int]) -> str:
    """Return the summary block.

    Args:
        stories: All studies.
        memory_bytes: What this process held after each of them.
    """
    return "\n".join(_lines(stories, memory_bytes))


def _lines(stories: Sequence[Story], memory_bytes: Sequence[int]) -> Iterator[str]:
    kinds, looks = Counter[str](), Counter[str]()
    for story in stories:
        kinds += story.kinds
        looks += story.looks.counts
    again, equal, careful = (sum(getattr(story, name) for story in stories) for name in ("again", "equal", "careful"))
    yield (
        f"{len(stories)} cycles, {sum(story.commands for story in stories)} commands, "
        f"{sum(story.trials for story in stories)} trials, {sum(story.epochs for story in stories)} epochs"
    )
    yield f"disturbances: {_listed(kinds)}"
    yield f"looks: {_listed(looks)}"
    yield f"trials trained again and equal: {equal} of {again}"
    if careful:
        yield f"  not trained again, since deaths had changed how they were trained: {careful}"
    if memory_bytes:
        folders = [story.folder_bytes / _MIB for story in stories]
        held = [size / _MIB for size in memory_bytes]
        yield f"MiB of a study's folder: {_course(folders)}; of this process's memory: {_course(held)}"
    yield f"broken invariants: {sum(len(story.problems) for story in stories)}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items()) if count)


def _course(values: Sequence[float]) -> str:
    return f"{values[0]:.1f} at first, {max(values):.1f} at most, {values[-1]:.1f} at last"
