"""What came of a disturbed study, and how it differs from one that nothing disturbed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.fixture_study import FixtureStudy
from harness.forks import Ending, in_fork
from harness.processes import output_of, tail
from harness.run import HarnessError
from harness.snapshot import Snapshot, differences, take_snapshot, why_ended

_MOST_NAMED = 8


@dataclass
class StudyOutcome:
    """What came of one disturbed study.

    Attributes:
        name: Its folder's name.
        problems: What is wrong with it; empty if everything is as it should be.
        seconds: How long it took, with all checks.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def line(self, events: str) -> str:
        """Return what happened to it in a line, and each of its problems in another one."""
        how = f"{len(self.problems)} PROBLEMS" if self.problems else "no problems"
        return "\n".join([f"{self.name}: {events}: {how}", *(f"  {problem}" for problem in self.problems)])


def reference_snapshot(small: FixtureStudy, folder: Path, ending: Ending) -> Snapshot:
    """Return the snapshot of a study that nothing disturbed.

    Raises:
        HarnessError: Its process failed, or its trials do not end in all ways that a trial can.
    """
    if ending.code != 0:
        raise HarnessError(f"the undisturbed run ended with {ending.code}:\n{tail(output_of(folder))}")
    snapshot = in_fork(take_snapshot, folder)
    if missing := small.ends - set(why_ended(snapshot)):
        raise HarnessError(f"no trial of the undisturbed run ended as {', '.join(sorted(missing))}")
    return snapshot


def snapshot_problems(reference: Snapshot, found: Snapshot, folder: Path) -> Iterator[str]:
    """Yield in which items a study differs from the reference; their full texts go to a file in its folder."""
    if differing := differences(reference, found):
        path = folder / "differences.txt"
        texts = (f"{one.item}\n{one.expected}\n{one.found}\n" for one in differing)
        path.write_text("".join(texts), encoding="utf-8")
        names = first_of([one.item for one in differing])
        yield f"items that differ, in full in {path}: {names}; the first: {differing[0]}"


def first_of(names: Sequence[str]) -> str:
    """Return the first few names and the number of the others."""
    others = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + others
