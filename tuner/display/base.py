"""The events of a run; the command line brings a picture of them, programs may stay silent."""

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
    """What a run leaves behind.

    Attributes:
        results: The documented results, as in the results file.
        results_path: Where they were written.
        output_dir: The study's folder.
        storage_url: The study's storage, without password; None for ``study.db`` in its folder.
        records: The ended trials of this run: presets in the order of their file, then search trials.
        targets: What they should reach.
        monitor: The metric that selects the best.
        leader: The experiment that is better by `monitor` than the results' best; None if none is.
        pending: How many trials of the study are still to do.
    """

    results: Mapping[str, Any]
    results_path: Path
    output_dir: Path
    storage_url: str | None
    records: Sequence[TrialRecord]
    targets: Targets
    monitor: str
    leader: str | None
    pending: int = 0


class Display:
    """Hears of everything that happens in a run, and by itself says nothing.

    Several trials may be running at once, each at a worker of its own; a trial is known by its number.
    """

    def note(self, text: str) -> None:
        """Something that the user should know, in a line."""

    def dataset_progress(self, done: int, total: int) -> None:
        """Images of a new dataset that are drawn so far."""

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """The run begins.

        Args:
            planned_trials: Every trial of this run, finished or not, by name; None for a search trial whose settings
                are not sampled yet.
            finished: Those of them that ended in an earlier run.
        """

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, adopted: bool) -> None:
        """A trial begins, or goes on after an interruption; it need not have been known when the run began."""

    def batch(self, number: int, done: int, total: int) -> None:
        """Training batches of a running trial's epoch that are done."""

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """An epoch of a running trial is done."""

    def trial_ended(self, record: TrialRecord) -> None:
        """A trial is done, well or not."""

    def trial_interrupted(self, number: int) -> None:
        """A running trial was left after an epoch, to be gone on with another time."""

    def worker_lost(self, number: int) -> None:
        """The worker of a running trial died; another one takes the trial up, which then starts again as adopted."""

    def status_polled(self, status: StudyStatus) -> None:
        """The study was looked at: what other processes do in it and what was added to it is in there too."""

    def run_ended(self, summary: RunSummary) -> None:
        """The results are written."""

    def close(self) -> None:
        """Nothing more will come: let go of the screen. It may be called again."""
