"""The outcome of a study with injected kills or faults, and its differences from the reference study."""

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
    """Outcome of one study with injected kills, faults or other interruptions.

    Attributes:
        name: Name of the study's folder.
        problems: One text per problem.
        seconds: Duration of the study in seconds, including all checks.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self, events: str) -> str:
        """Format a line with the events and the number of problems, followed by one line per problem."""
        verdict = f"{len(self.problems)} PROBLEMS" if self.problems else "no problems"
        return "\n".join([f"{self.name}: {events}: {verdict}", *(f"  {problem}" for problem in self.problems)])


def reference_snapshot(small: FixtureStudy, folder: Path, ending: Ending) -> Snapshot:
    """Check the process and the trials of the reference study; return the study's snapshot.

    Raises:
        HarnessError: The process failed, or no trial ended for one of the reasons in `small.ends`.
    """
    if ending.code != 0:
        output = tail(output_of(folder))
        raise HarnessError(f"the process of the reference study exited with {ending.code}; expected 0:\n{output}")
    snapshot = in_fork(take_snapshot, folder)
    if missing := small.ends - set(why_ended(snapshot)):
        reasons = ", ".join(sorted(missing))
        raise HarnessError(f"reference study: found no trial with the end reason {reasons}; use a larger --trials")
    return snapshot


def snapshot_problems(reference: Snapshot, found: Snapshot, folder: Path) -> Iterator[str]:
    """Compare a study with the reference study; yield a problem if they differ.

    The full texts of the differing items are written to `differences.txt` in the folder of the study.
    """
    if differing := differences(reference, found):
        path = folder / "differences.txt"
        texts = (f"{one.item}\n{one.expected}\n{one.found}\n" for one in differing)
        path.write_text("".join(texts), encoding="utf-8")
        names = abbreviated([one.item for one in differing])
        yield f"items differ from the reference (full texts in {path}): {names}; the first difference: {differing[0]}"


def abbreviated(names: Sequence[str]) -> str:
    """Join the first few names, followed by the number of the other names."""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
