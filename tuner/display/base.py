"""The events of a run, which displays show, and its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces import Targets, TrainingConfig
from studies import StudyStatus, TrialRecord
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics


@dataclass(frozen=True)
class RunSummary:
    """The results of a run and where they are.

    Attributes:
        results: The documented results, as in the results file.
        results_path: The results file; None if nothing was trained, so that none was written.
        output_dir: The study's output folder.
        storage_url: The study's storage, without password; None for ``study.db`` in the output folder.
        records: The ended trials of this run: presets in the order of their file, then search trials.
        targets: The targets of the study.
        monitor: The metric that selects the best.
        leader: The experiment that is better by `monitor` than the results' best; None if none is.
        pending: The number of pending trials of the study.
        training_images: The number of images that its trials train on.
        is_complete: Whether all trials of the study have ended.
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


class Display:
    """Receives the events of a run; this one shows nothing.

    Several trials may be running at once, each in a worker of its own; an event names its trial by number.
    """

    def note(self, text: str) -> None:
        """Show a line to the user."""

    def dataset_progress(self, done: int, total: int) -> None:
        """Images of a new dataset were generated, `done` so far."""

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """The run starts.

        Args:
            planned_trials: Every trial of this run, finished or not, by name; None for a search trial whose settings
                have not been sampled yet.
            finished: The planned trials that ended in an earlier run.
        """

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, resumed: bool) -> None:
        """A trial starts, or continues after an interruption (`resumed`); it may have been added during the run."""

    def batch(self, number: int, done: int, total: int) -> None:
        """`done` batches of a trial's epoch are finished; 0 when the epoch starts."""

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """An epoch of a trial is finished; those before an interruption are sent again when the trial continues."""

    def trial_ended(self, record: TrialRecord) -> None:
        """A trial has completed or failed."""

    def trial_interrupted(self, number: int) -> None:
        """A trial was stopped after an epoch and can be resumed."""

    def worker_lost(self, number: int) -> None:
        """The worker of a trial died; the next worker adopts the trial."""

    def status_polled(self, status: StudyStatus) -> None:
        """The status of the study was read; it contains the work of all processes."""

    def run_ended(self, summary: RunSummary) -> None:
        """The results are written."""

    def close(self) -> None:
        """The last event: restore the terminal. It may be sent again."""
