"""What a campaign of faults has shown, in one block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from harness.snapshot import Snapshot

from faults.calls import Call, Moment
from faults.campaign import FaultyStudy
from faults.child import Fault


def summary(studies: Sequence[FaultyStudy], calls: Sequence[Call], reference: Snapshot) -> Iterator[str]:
    """Yield the lines of the summary, one of them for each kind of call."""
    injections = [study.injection for study in studies]
    injected = Counter((injection.call.kind, injection.fault) for injection in injections)
    kinds = Counter(call.kind for call in calls)
    width = max(len(kind) for kind in kinds)
    yield " ".join([f"{'calls':{width}}", "   made", *(f"{fault:>9}" for fault in Fault)])
    for kind in sorted(kinds, key=lambda kind: (kind.split(" ")[1:], kind)):
        counts = (f"{injected[kind, fault] or '':>9}" for fault in Fault)
        yield " ".join([f"{kind:{width}}", f"{kinds[kind]:7}", *counts])
    yield ""
    around = Counter(injection.call.moment[0] for injection in injections if injection.call.moment is not None)
    yield from (f"faults around {moment}: {around[moment]}" for moment in Moment)
    exits = Counter(study.exit for study in studies)
    yield f"{len(studies)} faults: {', '.join(f'{name} {count}' for name, count in sorted(exits.items()))}"
    complete = sum(not study.problems for study in studies)
    yield f"studies complete and equal afterwards: {complete} of {len(studies)}"
    yield f"  compared bit for bit: {len(reference)} items of a study"
