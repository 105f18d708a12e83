"""The calls of a run that change its files, their purpose, and the choice of calls that fail."""

from __future__ import annotations

import os
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

FILE_NAME = "calls.txt"

# Parts of a path that differ between trials or runs for files of the same kind, and their general form.
_GENERAL_FORMS = (
    (r"^/out/(with_curves|plain|search_\d+)(?=/|$)", "/out/TRIAL"),
    (r"/\.[0-9a-f]{16}\.tmp$", "/.*.tmp"),
    (r"/artifacts/[^.].*$", "/artifacts/*"),
    (r"/leases/.+$", "/leases/*"),
    (r"/events\.out\..*$", "/events.*"),
    (r"epoch_\d+", "epoch_*"),
)


class Moment(StrEnum):
    """A part of a run in which every call is made to fail."""

    CHECKPOINT = "checkpoint"
    TELL = "tell"


@dataclass(frozen=True)
class Call:
    """A call that changes a file.

    Attributes:
        number: Number of the call in its process, from 1.
        kind: Name of the call and kind of file.
        moment: Moment that it belongs to and the number of that moment, from 1; None if it belongs to none.
    """

    number: int
    kind: str
    moment: tuple[Moment, int] | None


class Fault(StrEnum):
    """The way in which a call fails."""

    FULL = "disk full"
    ERROR = "I/O error"
    KILL = "kill"


@dataclass(frozen=True)
class Injection:
    """A call that fails, and the fault."""

    call: Call
    fault: Fault

    def __str__(self) -> str:
        """Return the fault, the call and its moment in one line."""
        moment = "" if self.call.moment is None else f", {self.call.moment[0]} {self.call.moment[1]}"
        return f"{self.fault} at call {self.call.number}, {self.call.kind}{moment}"


class CallLog:
    """The log of the calls and moments of one process."""

    def __init__(self, folder: Path) -> None:
        """Start the log of a process in its study's folder."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self.descriptor = os.open(folder / FILE_NAME, flags, 0o666)

    def started(self, moment: Moment) -> None:
        """Log the start of a moment."""
        os.write(self.descriptor, f"+ {moment}\n".encode())

    def ended(self) -> None:
        """Log the end of the current moment."""
        os.write(self.descriptor, b"-\n")


def read_calls(folder: Path) -> list[Call]:
    """Return the calls of the last process in a study's folder."""
    return list(_calls((folder / FILE_NAME).read_text(encoding="utf-8").splitlines(), folder))


def _calls(lines: list[str], folder: Path) -> Iterator[Call]:
    moment: tuple[Moment, int] | None = None
    seen = dict.fromkeys(Moment, 0)
    for line in lines:
        sign, *rest = line.split(" ", 2)
        if sign == "+":
            name = Moment(rest[0])
            seen[name] += 1
            moment = (name, seen[name])
        elif sign == "-":
            moment = None
        else:
            yield Call(int(sign), f"{rest[0]} {_kind_of_file(rest[1].removeprefix(str(folder)))}", moment)


def _kind_of_file(path: str) -> str:
    for pattern, general in _GENERAL_FORMS:
        path = re.sub(pattern, general, path)
    return path.removeprefix("/out").removeprefix("/") or "the output folder"


def plan(calls: Sequence[Call], rng: random.Random, sampled: int, *, all_moments: bool) -> list[Injection]:
    """Return the faults to inject, each into a new study.

    Args:
        calls: All calls of an undisturbed run.
        rng: Random number generator of all choices.
        sampled: Number of randomly chosen faults.
        all_moments: Whether each call around checkpoints and tells fails in every way, too.
    """
    chosen = [Injection(call, fault) for call in moments(calls) for fault in Fault] if all_moments else []
    taken = set(chosen)
    kinds: dict[str, list[Injection]] = defaultdict(list)
    for call in calls:
        kinds[call.kind] += [one for fault in Fault if (one := Injection(call, fault)) not in taken]
    for injections in kinds.values():
        rng.shuffle(injections)
    # Round robin, so that a rare kind of call is chosen as often as a frequent one.
    in_turn = [one for rank in range(len(calls)) for one in _nth(kinds.values(), rank, rng)]
    return chosen + in_turn[:sampled]


def moments(calls: Iterable[Call]) -> list[Call]:
    """Return the calls of checkpoints and tells, without repetitions of earlier ones."""
    by_moment: dict[tuple[Moment, int], list[Call]] = defaultdict(list)
    for call in calls:
        if call.moment is not None:
            by_moment[call.moment].append(call)
    chosen: list[Call] = []
    seen: set[object] = set()
    for (moment, _), inside in by_moment.items():
        # Equivalent calls count once: SQLite writes many pages in a row.
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
