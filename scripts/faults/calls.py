"""The file-system calls of a run, and the choice of the calls that fail."""

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

# Patterns of path parts that differ between trials or runs for files of the same kind, and what replaces them.
_GENERAL_FORMS = (
    (r"^/out/(with_curves|plain|search_\d+)(?=/|$)", "/out/TRIAL"),
    (r"/\.[0-9a-f]{16}\.tmp$", "/.*.tmp"),
    (r"/artifacts/[^.].*$", "/artifacts/*"),
    (r"/leases/.+$", "/leases/*"),
    (r"/events\.out\..*$", "/events.*"),
    (r"epoch_\d+", "epoch_*"),
)


class Operation(StrEnum):
    """An operation of a run in which the harness makes each file-system call fail once per kind of fault."""

    CHECKPOINT = "checkpoint"
    TELL = "tell"


@dataclass(frozen=True)
class Call:
    """A file-system call that creates, writes, flushes, renames, truncates or removes a file.

    Attributes:
        number: Number of the call within its process, from 1.
        kind: Name of the call and kind of file, such as ``rename results.json``.
        operation: Operation during which the call is made, and the number of that operation among those of the same
            name, from 1; None if the call is made outside of an operation.
    """

    number: int
    kind: str
    operation: tuple[Operation, int] | None


class Fault(StrEnum):
    """The way in which a file-system call fails."""

    FULL = "disk full"
    ERROR = "I/O error"
    KILL = "kill"


@dataclass(frozen=True)
class Injection:
    """A fault, and the file-system call that fails with this fault."""

    call: Call
    fault: Fault

    def __str__(self) -> str:
        """Format the fault, the call and the call's operation in one line."""
        operation = "" if self.call.operation is None else f", {self.call.operation[0]} {self.call.operation[1]}"
        return f"{self.fault} at call {self.call.number}, {self.call.kind}{operation}"


class CallLog:
    """The log of the file-system calls and operations of one process."""

    def __init__(self, folder: Path) -> None:
        """Create the log in the study's folder; the log of an earlier process is overwritten."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self.descriptor = os.open(folder / FILE_NAME, flags, 0o666)

    def started(self, operation: Operation) -> None:
        """Log the start of an operation."""
        os.write(self.descriptor, f"+ {operation}\n".encode())

    def ended(self) -> None:
        """Log the end of the current operation."""
        os.write(self.descriptor, b"-\n")


def read_calls(folder: Path) -> list[Call]:
    """Read the calls that the last process of the study in a folder made."""
    return list(_calls((folder / FILE_NAME).read_text(encoding="utf-8").splitlines(), folder))


def _calls(lines: list[str], folder: Path) -> Iterator[Call]:
    operation: tuple[Operation, int] | None = None
    seen = dict.fromkeys(Operation, 0)
    for line in lines:
        sign, *rest = line.split(" ", 2)
        if sign == "+":
            name = Operation(rest[0])
            seen[name] += 1
            operation = (name, seen[name])
        elif sign == "-":
            operation = None
        else:
            yield Call(int(sign), f"{rest[0]} {_kind_of_file(rest[1].removeprefix(str(folder)))}", operation)


def _kind_of_file(path: str) -> str:
    for pattern, general in _GENERAL_FORMS:
        path = re.sub(pattern, general, path)
    return path.removeprefix("/out").removeprefix("/") or "the output folder"


def plan(calls: Sequence[Call], rng: random.Random, sampled: int, *, all_operations: bool) -> list[Injection]:
    """Choose the faults to inject; each fault is injected into a new study.

    Args:
        calls: All calls of the reference study.
        rng: Random number generator for all choices.
        sampled: Number of randomly chosen faults.
        all_operations: Whether each call during a checkpoint or a `tell` also fails, once per kind of fault.
    """
    chosen = [Injection(call, fault) for call in operation_calls(calls) for fault in Fault] if all_operations else []
    taken = set(chosen)
    kinds: dict[str, list[Injection]] = defaultdict(list)
    for call in calls:
        kinds[call.kind] += [one for fault in Fault if (one := Injection(call, fault)) not in taken]
    for injections in kinds.values():
        rng.shuffle(injections)
    # Round robin over the kinds of calls, so that a rare kind is chosen as often as a frequent kind.
    in_turn = [one for rank in range(len(calls)) for one in _nth(kinds.values(), rank, rng)]
    return chosen + in_turn[:sampled]


def operation_calls(calls: Iterable[Call]) -> list[Call]:
    """Return the calls during checkpoints and `tell`, without operations that repeat an earlier operation."""
    by_operation: dict[tuple[Operation, int], list[Call]] = defaultdict(list)
    for call in calls:
        if call.operation is not None:
            by_operation[call.operation].append(call)
    chosen: list[Call] = []
    seen: set[object] = set()
    for (operation, _), inside in by_operation.items():
        # Equivalent calls count once: SQLite writes many pages in a row.
        steps = {
            (operation, before, call.kind): call for before, call in zip(_kinds_before(inside), inside, strict=True)
        }
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
