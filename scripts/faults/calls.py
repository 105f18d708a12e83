"""The calls of a run that change its disk, by number, and the purpose of each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

FILE_NAME = "calls.txt"

# Parts of a path that differ between trials, or between runs, for files of the same kind.
_ALIKE = (
    (r"^/out/(with_curves|plain|search_\d+)(?=/|$)", "/out/TRIAL"),
    (r"/\.[0-9a-f]{16}\.tmp$", "/.*.tmp"),
    (r"/artifacts/[^.].*$", "/artifacts/*"),
    (r"/leases/.+$", "/leases/*"),
    (r"/events\.out\..*$", "/events.*"),
    (r"epoch_\d+", "epoch_*"),
)


class Moment(StrEnum):
    """Work of a run in which every call is made to fail."""

    CHECKPOINT = "checkpoint"
    TELL = "tell"


@dataclass(frozen=True)
class Call:
    """A call that changes the disk.

    Attributes:
        number: Its number among all of its process, from 1.
        kind: What it does, to what kind of file.
        moment: Which of the moments it belongs to, and the number of that one, from 1; None if to none.
    """

    number: int
    kind: str
    moment: tuple[Moment, int] | None


class CallLog:
    """The log of one process: its calls, and the moments between them."""

    def __init__(self, folder: Path) -> None:
        """Start the log of a process in its study's folder."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self.descriptor = os.open(folder / FILE_NAME, flags, 0o666)

    def started(self, moment: Moment) -> None:
        """Log that a moment starts."""
        os.write(self.descriptor, f"+ {moment}\n".encode())

    def ended(self) -> None:
        """Log that it has ended."""
        os.write(self.descriptor, b"-\n")


def read_calls(folder: Path) -> list[Call]:
    """Return the calls of the latest process in a study's folder."""
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
    for pattern, general in _ALIKE:
        path = re.sub(pattern, general, path)
    return path.removeprefix("/out").removeprefix("/") or "the output folder"
