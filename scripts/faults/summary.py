"""What a campaign of faults has shown, in one block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from harness.snapshot import Snapshot

from faults.calls import Call, Moment
from faults.campaign import Story
from faults.child import Fault


def story_line(number: int, story: Story) -> str:
    """Return how a study fared, in a line; if badly, with all its problems."""
    how = "PROBLEM" if story.problems else "equal"
    code = "killed" if story.code is None else f"exit {story.code}"
    line = f"{number:4}  {story.injection}: {code}, {how}"
    return "\n".join([line, *(f"  {problem}" for problem in story.problems)])


def summary(stories: Sequence[Story], calls: Sequence[Call], reference: Snapshot) -> str:
    """Return the summary block."""
    return "\n".join(_lines(stories, calls, reference))


def _lines(stories: Sequence[Story], calls: Sequence[Call], reference: Snapshot) -> Iterator[str]:
    injected = Counter((story.injection.call.kind, story.injection.fault) for story in stories)
    kinds = Counter(call.kind for call in calls)
    width = max(len(kind) for kind in kinds)
    yield " ".join([f"{'calls':{width}}", "   made", *(f"{fault:>9}" for fault in Fault)])
    for kind in sorted(kinds, key=lambda kind: (kind.split(" ")[1:], kind)):
        yield " ".join(
            [f"{kind:{width}}", f"{kinds[kind]:7}", *(f"{injected[kind, fault] or '':>9}" for fault in Fault)]
        )
    yield ""
    for moment in Moment:
        hit = sum(
            story.injection.call.moment is not None and story.injection.call.moment[0] is moment for story in stories
        )
        yield f"faults around {moment}: {hit}"
    ends = Counter("killed" if story.code is None else f"exit {story.code}" for story in stories)
    yield f"{len(stories)} faults: {', '.join(f'{end} {count}' for end, count in sorted(ends.items()))}"
    complete = sum(not story.problems for story in stories)
    yield f"studies complete and equal afterwards: {complete} of {len(stories)}"
    yield f"  compared bit for bit: {len(reference)} items of a study"
