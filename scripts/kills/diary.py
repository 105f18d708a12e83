"""What the processes of one study note down while they live: a line each, whole, whatever kills them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

FILE_NAME = "diary.jsonl"


class What(StrEnum):
    """What happened."""

    BEGUN = "epoch begun"
    SAVED = "epoch saved"
    GOT_ON = "trial got on"
    KILL = "kill"
    PASSED = "points passed"


@dataclass(frozen=True)
class Entry:
    """A line of the diary.

    Attributes:
        start: The process: how many were started before it, and itself.
        time_s: When, on the clock that all processes of a machine share.
        what: What happened.
        trial: To which trial.
        epoch: In which epoch, counted from 1; 0 if in none.
        point: Where it killed itself.
        passages: How often it passed each point.
    """

    start: int
    time_s: float
    what: What
    trial: str = ""
    epoch: int = 0
    point: str = ""
    passages: dict[str, int] | None = None


class Diary:
    """The diary of one process."""

    def __init__(self, folder: Path, start: int) -> None:
        """Open the study's diary for the process of this number."""
        self._start = start
        self._descriptor = os.open(folder / FILE_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def note(
        self, what: What, trial: str = "", epoch: int = 0, point: str = "", passages: dict[str, int] | None = None
    ) -> None:
        """Write a line."""
        entry = Entry(self._start, time.monotonic(), what, trial, epoch, point, passages)
        os.write(self._descriptor, (json.dumps(asdict(entry)) + "\n").encode())


def read_diary(folder: Path, start: int | None = None) -> list[Entry]:
    """Return what a study's processes, or one of them, noted down."""
    path = folder / FILE_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    entries = [Entry(**{**fields, "what": What(fields["what"])}) for fields in map(json.loads, lines)]
    return [entry for entry in entries if start is None or entry.start == start]
