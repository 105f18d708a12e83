"""What people see while a run goes on; the command line brings a picture of it, programs may stay silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces import Targets, TrainingConfig
from studies import TrialRecord
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
        records: The ended trials of this run's experiments, in the order of their file.
        targets: What they should reach.
        monitor: The metric that selects the best.
        leader: The experiment that is better by `monitor` than the results' best; None if none is.
    """

    results: Mapping[str, Any]
    results_path: Path
    output_dir: Path
    storage_url: str | None
    records: Sequence[TrialRecord]
    targets: Targets
    monitor: str
    leader: str | None


class Display:
    """Hears of everything that happens in a run, and by itself says nothing."""

    def note(self, text: str) -> None:
        """Something that the user should know, in a line."""

    def dataset_progress(self, done: int, total: int) -> None:
        """Images of a new dataset that are drawn so far."""

    def run_started(self, experiments: Mapping[str, TrainingConfig], finished: Sequence[TrialRecord]) -> None:
        """The experiments of this run, and those of them that ended in an earlier one."""

    def trial_started(self, name: str, number: int, config: TrainingConfig, *, adopted: bool) -> None:
        """A trial begins, or goes on after an interruption."""

    def batch(self, done: int, total: int) -> None:
        """Training batches of the running epoch that are done."""

    def epoch_ended(self, metrics: EpochMetrics, early_stopping: EarlyStopping) -> None:
        """An epoch of the running trial is done."""

    def trial_ended(self, record: TrialRecord) -> None:
        """A trial is done, well or not."""

    def run_ended(self, summary: RunSummary) -> None:
        """The results are written."""

    def close(self) -> None:
        """Nothing more will come: let go of the screen. It may be called again."""
