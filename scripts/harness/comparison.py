"""The outcome of a disturbed study, and its differences from an undisturbed one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.fixture_study import FixtureStudy
from harness.forks import Ending, in_fork
from harness.processes import output_of, tail
from harness.run import HarnessError
from harness.snapshot import Snapshot, differences, take_snapshot, why_ended

_MAX_NAMES = 8


@dataclass
class StudyOutcome:
    """Outcome of one disturbed study.

    Attributes:
        name: Name of its folder.
        problems: A text for each problem that was found.
        seconds: Duration, including all checks.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self, events: str) -> str:
        """Return a line with the events and the number of problems, followed by a line for each problem."""
        verdict = f"{len(self.problems)} PROBLEMS" if self.problems else "no problems"
        return "\n".join([f"{self.name}: {events}: {verdict}", *(f"  {problem}" for problem in self.problems)])


def reference_snapshot(small: FixtureStudy, folder: Path, ending: Ending) -> Snapshot:
    """Return the snapshot of an undisturbed study.

    Raises:
        HarnessError: Its process failed, or its trials do not show every reason for which a trial can end.
    """
    if ending.code != 0:
        raise HarnessError(f"the undisturbed run exited with {ending.code}:\n{tail(output_of(folder))}")
    snapshot = in_fork(take_snapshot, folder)
    if missing := small.ends - set(why_ended(snapshot)):
        raise HarnessError(f"no trial of the undisturbed run ended as {', '.join(sorted(missing))}")
    return snapshot


def snapshot_problems(reference: Snapshot, found: Snapshot, folder: Path) -> Iterator[str]:
    """Yield a problem if a study differs from the reference; write the full texts to a file in its folder."""
    if differing := differences(reference, found):
        path = folder / "differences.txt"
        texts = (f"{one.item}\n{one.expected}\n{one.found}\n" for one in differing)
        path.write_text("".join(texts), encoding="utf-8")
        names = abbreviated([one.item for one in differing])
        yield f"differing items, in full in {path}: {names}; the first: {differing[0]}"


def abbreviated(names: Sequence[str]) -> str:
    """Return the first few names and the number of further ones."""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
