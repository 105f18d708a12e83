"""What a disturbed study is compared with, and what is said of a difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.fixture_study import FixtureStudy
from harness.processes import Ending, HarnessError, in_fork, last_words
from harness.snapshot import Difference, Snapshot, take_snapshot, why_ended

_MOST_NAMED = 8


def reference_snapshot(small: FixtureStudy, folder: Path, ending: Ending) -> Snapshot:
    """Return what a run that nothing disturbed left behind.

    Raises:
        HarnessError: It failed, or does not show all that a study can show.
    """
    if ending.code != 0:
        raise HarnessError(f"the undisturbed run ended with {ending.code}:\n{last_words(folder)}")
    snapshot = in_fork(take_snapshot, folder)
    if missing := small.ends - set(why_ended(snapshot)):
        raise HarnessError(f"no trial of the undisturbed run ended as {', '.join(sorted(missing))}")
    return snapshot


def told_differences(folder: Path, differing: Sequence[Difference]) -> str:
    """Return what differs in a study, in short; the whole of it goes to a file in its folder."""
    path = folder / "differences.txt"
    path.write_text("\n".join(one.whole for one in differing) + "\n", encoding="utf-8")
    names = first_of([one.item for one in differing])
    return f"items that differ, in full in {path}: {names}; the first: {differing[0]}"


def first_of(names: Sequence[str]) -> str:
    """Return the first names of many."""
    others = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + others
