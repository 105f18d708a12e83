"""Events of a run from one process to another: a worker writes them as lines of JSON, its parent shows them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, TypeAdapter

from search_spaces import TrainingConfig
from studies import StudyStatus, TrialRecord
from tuner.display.base import Display, RunSummary
from tuner.display.terminal import forgiving
from tuner.signals import raise_if_requested
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_BATCH_SECONDS = 0.2

_PLANNED = TypeAdapter(dict[str, TrainingConfig | None])
_RECORDS = TypeAdapter(list[TrialRecord])
_CONFIG = TypeAdapter(TrainingConfig)
_METRICS = TypeAdapter(EpochMetrics)
_SIGNAL = TypeAdapter(EarlyStopping)
_RECORD = TypeAdapter(TrialRecord)
_STATUS = TypeAdapter(StudyStatus)
_SUMMARY = TypeAdapter(RunSummary)


class EventWriter(Display):
    """Writes each event as a line of JSON, for `replay`.

    Closing is no event: the stream's end says it, and one worker's end is not that of the display it writes for.
    """

    def __init__(self, stream: TextIO) -> None:
        """Write to a stream.

        Args:
            stream: A UTF-8 stream; when nobody reads it any more, the training goes on in silence.
        """
        self._stream = forgiving(stream)
        self._next_batch: dict[int, float] = {}

    def note(self, text: str) -> None:
        """Write the note."""
        self._write("note", text=text)

    def dataset_progress(self, done: int, total: int) -> None:
        """Write how far the dataset is."""
        self._write("dataset_progress", done=done, total=total)

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """Write what there is to do."""
        self._write("run_started", planned_trials=planned_trials, finished=finished)

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, adopted: bool) -> None:
        """Write which trial it is."""
        self._write("trial_started", number=number, name=name, config=config, adopted=adopted)

    def batch(self, number: int, done: int, total: int) -> None:
        """Write how far the epoch is, a few times a second and at its end."""
        raise_if_requested()
        now = time.monotonic()
        if done == total or now >= self._next_batch.get(number, 0.0):
            self._next_batch[number] = now + _BATCH_SECONDS
            self._write("batch", number=number, done=done, total=total)

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Write the epoch's figures."""
        self._write("epoch_ended", number=number, metrics=metrics, signal=signal)

    def trial_ended(self, record: TrialRecord) -> None:
        """Write how it ended."""
        self._next_batch.pop(record.number, None)
        self._write("trial_ended", record=record)

    def trial_interrupted(self, number: int) -> None:
        """Write which trial it is."""
        self._write("trial_interrupted", number=number)

    def worker_lost(self, number: int) -> None:
        """Write which trial it is."""
        self._write("worker_lost", number=number)

    def status_polled(self, status: StudyStatus) -> None:
        """Write how the study stands."""
        self._write("status_polled", status=status)

    def run_ended(self, summary: RunSummary) -> None:
        """Write the summary."""
        self._write("run_ended", summary=summary)

    def _write(self, event: str, **arguments: object) -> None:
        # NaN and Infinity stay bare words, which JSON lacks and Python reads.
        line = json.dumps({"event": event} | arguments, ensure_ascii=False, default=_plain)
        self._stream.write(f"{_SURROGATE.sub(_escaped, line)}\n")
        self._stream.flush()


def replay(line: str, display: Display) -> None:
    """Tell a display what an `EventWriter` wrote in a line.

    Raises:
        ValueError: The line is no event: something else printed it, or its writer died halfway.
    """
    match json.loads(line):
        case {"event": "note", "text": text}:
            display.note(text)
        case {"event": "dataset_progress", "done": done, "total": total}:
            display.dataset_progress(done, total)
        case {"event": "run_started", "todo": planned_trials, "finished": finished}:
            display.run_started(_PLANNED.validate_python(planned_trials), _RECORDS.validate_python(finished))
        case {"event": "trial_started", "number": number, "name": name, "config": config, "adopted": adopted}:
            display.trial_started(number, name, _CONFIG.validate_python(config), adopted=adopted)
        case {"event": "batch", "number": number, "done": done, "total": total}:
            display.batch(number, done, total)
        case {"event": "epoch_ended", "number": number, "metrics": metrics, "signal": signal}:
            display.epoch_ended(number, _METRICS.validate_python(metrics), _SIGNAL.validate_python(signal))
        case {"event": "trial_ended", "record": record}:
            display.trial_ended(_RECORD.validate_python(record))
        case {"event": "trial_interrupted", "number": number}:
            display.trial_interrupted(number)
        case {"event": "worker_lost", "number": number}:
            display.worker_lost(number)
        case {"event": "status_polled", "status": status}:
            display.status_polled(_STATUS.validate_python(status))
        case {"event": "run_ended", "summary": summary}:
            display.run_ended(_SUMMARY.validate_python(summary))
        case _:
            raise ValueError(f"a line of JSON that tells an event is expected, but got {line.rstrip()!r}")


# File names that are not UTF-8 reach messages as lone surrogates, which no stream can encode.
_SURROGATE = re.compile("[\ud800-\udfff]")


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _plain(value: object) -> Any:
    """Return what `json` can write of something that it cannot."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"an event cannot hold {value!r}")
