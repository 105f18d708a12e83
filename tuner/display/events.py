"""The events of a run: the display that receives them, and their JSON lines from a worker process to its parent."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from pydantic import TypeAdapter

from search_spaces import Targets, TrainingConfig
from studies import StudyStatus, TrialRecord
from tuner.display.terminal import ignoring_write_errors
from tuner.signals import raise_if_requested
from tuner.training.history import EarlyStopping, EpochMetrics


@dataclass(frozen=True)
class RunSummary:
    """The results of a run and the paths of its files.

    Attributes:
        results: The documented results, as in the results file.
        results_path: The results file; None if no file was written, because no trial was trained.
        output_dir: The study's output folder.
        storage_url: The study's storage URL, without password; None for ``study.db`` in the output folder.
        records: The finished trials of this run: presets in the order of their file, then search trials.
        targets: The targets of the study.
        monitor: The monitored metric.
        leader: The trial with a better `monitor` value than the ``best_result`` of the results; None if no trial has.
        pending: The number of pending trials in the study.
        training_images: The number of training images.
        is_complete: Whether all trials of the study are finished.
        unseen: The accuracies of the best trial on unseen designs, as text; "" if the dataset has none.
    """

    results: Mapping[str, Any]
    results_path: Path | None
    output_dir: Path
    storage_url: str | None
    records: Sequence[TrialRecord]
    targets: Targets
    monitor: str
    leader: str | None
    pending: int = 0
    training_images: int = 0
    is_complete: bool = False
    unseen: str = ""


class Display:
    """A receiver of the events of a run; this base class shows nothing.

    Several trials may run in parallel, each in its own worker process; an event identifies its trial by number.
    """

    def note(self, text: str) -> None:
        """Show a message to the user."""

    def dataset_progress(self, done: int, total: int) -> None:
        """Handle the progress of the dataset generator: `done` of `total` images are generated."""

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """Handle the start of the run.

        Args:
            planned_trials: The settings of every trial of this run, keyed by name, including finished trials; None for
                a search trial whose settings have not been sampled yet.
            finished: The planned trials that finished in an earlier run.
        """

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, resumed: bool) -> None:
        """Handle the start of a trial, or its resumption (`resumed`); the trial may have been added during the run."""

    def batch(self, number: int, done: int, total: int) -> None:
        """Handle the progress of an epoch: `done` of `total` batches are finished, 0 at its start."""

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Handle a finished epoch; a resumed trial first sends its earlier epochs again."""

    def trial_ended(self, record: TrialRecord) -> None:
        """Handle a finished trial: completed, pruned or failed."""

    def trial_interrupted(self, number: int) -> None:
        """Handle an interrupted trial: it was stopped after an epoch and can be resumed."""

    def worker_lost(self, number: int) -> None:
        """Handle the unexpected exit of a trial's worker; another worker will resume the trial."""

    def status_polled(self, status: StudyStatus) -> None:
        """Handle a new status of the study, which includes the trials of all processes."""

    def run_ended(self, summary: RunSummary) -> None:
        """Handle the end of the run, after the results are written."""

    def close(self) -> None:
        """Restore the terminal; this is the last event of a run and may be sent twice."""


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
