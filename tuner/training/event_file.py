"""A TensorBoard event file that retries failed writes."""

from __future__ import annotations

import io
import itertools
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from search_spaces.diagnostics.disk import is_full_or_read_only

log = logging.getLogger(__name__)

_numbers = itertools.count()
_AFTER_ALL_STEPS = 2**62


class EventFile:
    """A TensorBoard event file to which each event is written immediately, in the calling thread.

    PyTorch's writer uses a separate thread, which detects a disk error too late and then drops all later events. This
    class keeps an event that could not be written, and retries it together with the next event.

    After an interruption, a new file replaces the end of the older files of the run. TensorBoard discards the older
    values of a tag from the first step that the new file contains for this tag. TensorBoard's Python code does so only
    if the file has version 1 and that step is lower than the step of the event before. Therefore an empty event with a
    very high step precedes each new tag.
    """

    def __init__(self, folder: Path) -> None:
        # TensorBoard reads the files of a run in alphabetical order.
        seconds, fraction = divmod(time.time_ns(), 10**9)
        writer = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._path = folder / f"events.out.tfevents.{seconds:010d}.{fraction:09d}.{writer}"
        self._file: io.FileIO | None = None
        self._unwritten = bytearray()
        self._write_failed = False
        self._tags: set[str] = set()
        self._append(0, file_version="brain.Event:1")

    def add(self, step: int, summary: Any) -> None:
        """Write a summary to the file, after any events that could not be written earlier.

        Raises:
            OSError: The disk is full or read-only; other errors are logged.
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
        """Write the remaining events and close the file."""
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
            if not self._write_failed:  # the training continues without its TensorBoard curves
                log.warning("%s: cannot be written (%s); the next event tries again", self._path, error)
            self._write_failed = True
        else:
            self._write_failed = False
