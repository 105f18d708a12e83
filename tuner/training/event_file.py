"""An event file as TensorBoard reads it."""

from __future__ import annotations

import io
import itertools
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from search_spaces.diagnostics.disk_errors import is_full_or_read_only

log = logging.getLogger(__name__)

_numbers = itertools.count()
_AFTER_ALL_STEPS = 2**62


class EventFile:
    """Appends events in the thread that adds them, each of them at once.

    PyTorch's writer has a thread of its own, where an error of the disk is found too late and ends all that is to come.
    Here, what could not be written is written with the next event.

    TensorBoard drops what older files of the run hold of a tag, from the step on at which this file begins with it. Its
    Python code does so in files of version 1, and where the step is lower than that of the event before.
    """

    def __init__(self, folder: Path) -> None:
        # TensorBoard reads a run's files in the order of their names.
        seconds, fraction = divmod(time.time_ns(), 10**9)
        writer = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._path = folder / f"events.out.tfevents.{seconds:010d}.{fraction:09d}.{writer}"
        self._file: io.FileIO | None = None
        self._unwritten = bytearray()
        self._write_failed = False
        self._tags: set[str] = set()
        self._append(0, file_version="brain.Event:1")

    def add(self, step: int, summary: Any) -> None:
        """Add a summary.

        Raises:
            OSError: There is no room on the disk; other errors are logged.
        """
        tags = {value.tag for value in summary.value}
        if not tags <= self._tags:
            self._tags |= tags
            self._append(_AFTER_ALL_STEPS, summary=type(summary)())
        self._append(step, summary=summary)

    def _append(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
        self._unwritten += record.getvalue()
        self._write()

    def close(self) -> None:
        """Close the file."""
        try:
            self._write()
        finally:
            if self._file is not None:
                self._file.close()

    def _write(self) -> None:
        try:
            if self._file is None:
                self._path.parent.mkdir(exist_ok=True)
                self._file = io.FileIO(self._path, "a")
            while self._unwritten:
                del self._unwritten[: self._file.write(self._unwritten)]
        except OSError as error:
            if is_full_or_read_only(error):
                raise
            if not self._write_failed:  # what is only shown decides no training's fate
                log.warning("%s cannot be written now: %s", self._path, error)
            self._write_failed = True
        else:
            self._write_failed = False
