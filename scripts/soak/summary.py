"""What a soak has shown: a line for each study, and one block in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from soak.cycle import SoakedStudy

_MIB = 2**20


def study_line(study: SoakedStudy) -> str:
    """Return what came of a study in a line, and each of its problems in another one."""
    kinds = _listed(study.kinds) or "not disturbed"
    return study.line(f"{kinds}; {study.commands} commands, {study.seconds:.0f} s")


def summary(studies: Sequence[SoakedStudy], memory_bytes: Sequence[int]) -> Iterator[str]:
    """Yield the lines of the summary.

    Args:
        studies: All studies.
        memory_bytes: Memory of this process after each of them.
    """
    kinds, polls = Counter[str](), Counter[str]()
    for study in studies:
        kinds += study.kinds
        polls += study.polls.counts
    names = ("commands", "trials", "epochs", "retrained", "equal", "not_retrained")
    total = {name: sum(getattr(study, name) for study in studies) for name in names}
    yield f"{len(studies)} cycles, " + ", ".join(f"{total[name]} {name}" for name in names[:3])
    yield f"disturbances: {_listed(kinds)}"
    yield f"polls: {_listed(polls)}"
    yield f"trials trained again and equal: {total['equal']} of {total['retrained']}"
    if total["not_retrained"]:
        yield f"  not trained again, since deaths had changed how they were trained: {total['not_retrained']}"
    if memory_bytes:
        folders = _course([study.folder_bytes for study in studies])
        yield f"MiB of a study's folder: {folders}; of this process's memory: {_course(memory_bytes)}"
    yield f"broken invariants: {sum(len(study.problems) for study in studies)}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items()) if count)


def _course(sizes: Sequence[int]) -> str:
    first, most, last = (size / _MIB for size in (sizes[0], max(sizes), sizes[-1]))
    return f"{first:.1f} at first, {most:.1f} at most, {last:.1f} at last"
