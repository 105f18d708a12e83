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


class EventFile:
    """Appends events in the thread that adds them, each of them at once.

    PyTorch's writer has a thread of its own, where an error of the disk is found too late and ends all that is to come.
    Here, what could not be written is written with the next event.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        """Start a file in the folder of a run.

        From `purge_step` on, TensorBoard drops what older files of the run hold; None to drop nothing.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog

        # TensorBoard reads a run's files in the order of their names.
        seconds, fraction = divmod(time.time_ns(), 10**9)
        writer = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._path = folder / f"events.out.tfevents.{seconds:010d}.{fraction:09d}.{writer}"
        self._file: io.FileIO | None = None
        self._unwritten = bytearray()
        self._fails = False
        self.add(purge_step, file_version="brain.Event:2")
        if purge_step is not None:
            self.add(purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int | None, **content: Any) -> None:
        """Add an event with the given fields, for example a `summary`.

        Raises:
            OSError: There is no room on the disk; other errors are logged.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        event = Event(wall_time=time.time(), step=step or 0, **content)
        RecordWriter(record).write(event.SerializeToString())
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
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = io.FileIO(self._path, "a")
            while self._unwritten:
                del self._unwritten[: self._file.write(self._unwritten)]
        except OSError as error:
            if is_full_or_read_only(error):
                raise
            if not self._fails:  # what is only shown decides no training's fate
                log.warning("%s cannot be written now: %s", self._path, error)
            self._fails = True
        else:
            self._fails = False
