"""The event log of a study's processes, with one line per event.

A line is not lost if the process is killed directly after the event.
"""

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
    """What happened in a process: an epoch, a takeover at the crash limit, progress, a kill, or the exit."""

    EPOCH_STARTED = "epoch started"
    EPOCH_SAVED = "epoch saved"
    CRASH_LIMIT = "crash limit"
    PROGRESS = "progress"
    KILL = "kill"
    EXIT = "exit"


@dataclass(frozen=True)
class Event:
    """A line of the event log.

    Attributes:
        start: Number of the process within its study, from 1.
        time_s: Time on the monotonic clock, which all processes of a machine share.
        kind: Kind of the event.
        trial: Name of the trial; empty if the event concerns no trial.
        epoch: Number of the epoch, from 1; 0 if the event concerns no epoch.
        point: Kill point at which the process killed itself; empty if the event is not a kill.
        passages: How often the process passed each kill point, keyed by point; None unless the event is the exit.
    """

    start: int
    time_s: float
    kind: EventKind
    trial: str = ""
    epoch: int = 0
    point: str = ""
    passages: dict[str, int] | None = None


class EventLog:
    """An event log to which one process appends."""

    def __init__(self, folder: Path, start: int) -> None:
        """Open the log in a study's folder; `start` is the number of this process."""
        self._start = start
        self._descriptor = os.open(folder / FILE_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def append(self, kind: EventKind, **fields: Any) -> None:
        """Append an event; `fields` are further attributes of `Event`."""
        event = Event(self._start, time.monotonic(), kind, **fields)
        os.write(self._descriptor, (json.dumps(asdict(event)) + "\n").encode())


def is_at_crash_limit(events: list[Event]) -> bool:
    """Return whether one more crash would make the program end the process's trial as crashed; given its events."""
    kinds = [event.kind for event in events if event.kind in (EventKind.CRASH_LIMIT, EventKind.PROGRESS)]
    return kinds[-1:] == [EventKind.CRASH_LIMIT]


def read_events(folder: Path, start: int | None = None) -> list[Event]:
    """Read the events of all processes of a study, or only those of the process with the number `start`."""
    path = folder / FILE_NAME
    # A process may be writing the text after the last line break.
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    events = [Event(**{**fields, "kind": EventKind(fields["kind"])}) for fields in map(json.loads, lines)]
    return [event for event in events if start is None or event.start == start]
