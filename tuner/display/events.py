"""Events of a worker process: the worker writes them as JSON lines, and its parent replays them to a display."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TextIO

from pydantic import TypeAdapter

from search_spaces import TrainingConfig
from studies import TrialRecord
from tuner.display.base import Display
from tuner.display.terminal import ignoring_write_errors
from tuner.signals import raise_if_requested
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_BATCH_SECONDS = 0.2

_CONFIG = TypeAdapter(TrainingConfig)
_METRICS = TypeAdapter(EpochMetrics)
_SIGNAL = TypeAdapter(EarlyStopping)
_RECORD = TypeAdapter(TrialRecord)


class EventWriter(Display):
    """A display that writes notes and trial events as JSON lines for `replay`; only the parent has other events."""

    def __init__(self, stream: TextIO) -> None:
        """Set the output stream; if the process that reads it exits, training continues without output."""
        self._stream = ignoring_write_errors(stream)
        self._next_batch = 0.0

    def note(self, text: str) -> None:
        """Write an event with a note to the stream."""
        self._write("note", text=text)

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, resumed: bool) -> None:
        """Write an event with the settings of a trial that starts."""
        self._write("trial_started", number=number, name=name, config=config, resumed=resumed)

    def batch(self, number: int, done: int, total: int) -> None:
        """Write events with the progress of an epoch: a few times a second, and at the end of the epoch."""
        raise_if_requested()
        now = time.monotonic()
        if done == total or now >= self._next_batch:
            self._next_batch = now + _BATCH_SECONDS
            self._write("batch", number=number, done=done, total=total)

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Write an event with the metrics and the early stopping state of a finished epoch."""
        self._write("epoch_ended", number=number, metrics=metrics, signal=signal)

    def trial_ended(self, record: TrialRecord) -> None:
        """Write an event with the result of a finished trial."""
        self._write("trial_ended", record=record)

    def trial_interrupted(self, number: int) -> None:
        """Write an event for an interrupted trial."""
        self._write("trial_interrupted", number=number)

    def _write(self, event: str, **arguments: object) -> None:
        # NaN and Infinity are not valid JSON, but Python's parser reads them.
        self._stream.write(f"{json.dumps({'event': event} | arguments, default=asdict)}\n")
        self._stream.flush()


def replay(line: str, display: Display) -> None:
    """Parse a line that an `EventWriter` wrote, and send its event to a display.

    Raises:
        ValueError: The line is not an event: a library printed it, or the worker was killed while writing.
    """
    match json.loads(line):
        case {"event": "note", "text": text}:
            display.note(text)
        case {"event": "trial_started", "number": number, "name": name, "config": config, "resumed": resumed}:
            display.trial_started(number, name, _CONFIG.validate_python(config), resumed=resumed)
        case {"event": "batch", "number": number, "done": done, "total": total}:
            display.batch(number, done, total)
        case {"event": "epoch_ended", "number": number, "metrics": metrics, "signal": signal}:
            display.epoch_ended(number, _METRICS.validate_python(metrics), _SIGNAL.validate_python(signal))
        case {"event": "trial_ended", "record": record}:
            display.trial_ended(_RECORD.validate_python(record))
        case {"event": "trial_interrupted", "number": number}:
            display.trial_interrupted(number)
        case _:
            raise ValueError(f"found {line.rstrip()!r}; expected a JSON line with a worker event")
