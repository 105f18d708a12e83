"""Which calls of a run fail, and how: all around checkpoints and tells, and a seeded sample of the others."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from faults.calls import Call, Moment
from faults.child import Fault


@dataclass(frozen=True)
class Injection:
    """A call that fails, and how."""

    call: Call
    fault: Fault

    def __str__(self) -> str:
        """Return it in a line."""
        moment = "" if self.call.moment is None else f", {self.call.moment[0]} {self.call.moment[1]}"
        return f"{self.fault} at call {self.call.number}, {self.call.kind}{moment}"


def plan(calls: Sequence[Call], rng: random.Random, sampled: int, *, all_moments: bool) -> list[Injection]:
    """Return the faults to inject, each into a study of its own.

    Args:
        calls: All calls of an undisturbed run.
        rng: The source of all randomness.
        sampled: How many are drawn at random.
        all_moments: Whether, in addition, each call around checkpoints and tells fails in every way.
    """
    chosen = [Injection(call, fault) for call in moments(calls) for fault in Fault] if all_moments else []
    taken = set(chosen)
    kinds: dict[str, list[Injection]] = defaultdict(list)
    for call in calls:
        kinds[call.kind] += [one for fault in Fault if (one := Injection(call, fault)) not in taken]
    for injections in kinds.values():
        rng.shuffle(injections)
    # By turns, so that a rare kind of call is drawn as often as a frequent one.
    turns = [one for rank in range(len(calls)) for one in _nth(kinds.values(), rank, rng)]
    return chosen + turns[:sampled]


def moments(calls: Iterable[Call]) -> list[Call]:
    """Return the calls of checkpoints and tells, without those that repeat earlier ones."""
    made: dict[tuple[Moment, int], list[Call]] = defaultdict(list)
    for call in calls:
        if call.moment is not None:
            made[call.moment].append(call)
    chosen: list[Call] = []
    seen: set[object] = set()
    for (moment, _), inside in made.items():
        # SQLite writes page after page, which are all the same.
        steps = {(moment, before, call.kind): call for before, call in zip(_kinds_before(inside), inside, strict=True)}
        if not seen.issuperset(steps):
            chosen += steps.values()
            seen.update(steps)
    return chosen


def _kinds_before(calls: Sequence[Call]) -> list[str]:
    return ["", *(call.kind for call in calls[:-1])]


def _nth(groups: Iterable[Sequence[Injection]], rank: int, rng: random.Random) -> list[Injection]:
    nth = [group[rank] for group in groups if rank < len(group)]
    rng.shuffle(nth)
    return nth
