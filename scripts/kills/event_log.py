"""The event log of a study's processes: one line for each event, which survives a kill directly after it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

FILE_NAME = "events.jsonl"


class EventKind(StrEnum):
    """The kind of an event."""

    EPOCH_STARTED = "epoch started"
    EPOCH_SAVED = "epoch saved"
    PROGRESS = "progress"
    KILL = "kill"
    EXIT = "exit"


@dataclass(frozen=True)
class Event:
    """A line of the log.

    Attributes:
        start: Number of the process among those of its study.
        time_s: Time on the monotonic clock, which all processes of a machine share.
        kind: Kind of the event.
        trial: Name of the trial.
        epoch: Number of the epoch, from 1; 0 if the event belongs to none.
        point: Kill point at which the process killed itself.
        passages: Number of passages of each kill point.
    """

    start: int
    time_s: float
    kind: EventKind
    trial: str = ""
    epoch: int = 0
    point: str = ""
    passages: dict[str, int] | None = None


class EventLog:
    """The log to which one process appends events."""

    def __init__(self, folder: Path, start: int) -> None:
        """Open the log of a study's folder for the process of this number."""
        self._start = start
        self._descriptor = os.open(folder / FILE_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def append(self, kind: EventKind, **fields: Any) -> None:
        """Append an event with these further fields of `Event`."""
        event = Event(self._start, time.monotonic(), kind, **fields)
        os.write(self._descriptor, (json.dumps(asdict(event)) + "\n").encode())


def read_events(folder: Path, start: int | None = None) -> list[Event]:
    """Return the events of all processes of a study, or of one of them."""
    path = folder / FILE_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    events = [Event(**{**fields, "kind": EventKind(fields["kind"])}) for fields in map(json.loads, lines)]
    return [event for event in events if start is None or event.start == start]
