"""The base class of displays that print a line for every change in the study."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from rich.console import Console

from search_spaces import TrainingConfig
from search_spaces.diagnostics.plural import counted
from studies import RowState, StudyStatus, TrialPhase, TrialRecord
from tuner.display.base import Display, RunSummary
from tuner.display.lines import finished_lines, row_line, title, trial_line
from tuner.display.progress import RunProgress
from tuner.display.summary import print_summary
from tuner.signals import raise_if_requested
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_COMPLETED, _FAILED = "green", "bold red"


class PrintingDisplay(Display, ABC):
    """A display that tracks the progress of a run and prints the changes; a subclass defines where (`_print`)."""

    def __init__(self, summary_console: Console | None) -> None:
        """Set the console for the summary; None for no summary."""
        self._progress = RunProgress()
        self._summary_console = summary_console

    @abstractmethod
    def _print(self, text: str, style: str = "") -> None:
        """Print a line; a terminal shows it in the Rich style `style`."""

    def _refresh(self) -> None:
        """Redraw the live view, if there is one."""

    def note(self, text: str) -> None:
        """Print a note."""
        self._print(text)

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """Print the trials that are already finished."""
        for line in finished_lines(finished):
            self.note(line)
        if len(finished) == len(planned_trials):
            self.note("nothing to train: all trials of this run are finished")

    def batch(self, number: int, done: int, total: int) -> None:
        """Store the progress of the epoch, and redraw the live view."""
        raise_if_requested()
        self._progress.batch(number, done, total)
        self._refresh()

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Store the metrics of the epoch, and redraw the live view."""
        self._progress.epoch_ended(number, metrics, signal)
        self._refresh()

    def trial_ended(self, record: TrialRecord) -> None:
        """Print the result of the trial."""
        self._progress.trial_ended(record)
        self._print(trial_line(record), _COMPLETED if record.phase is TrialPhase.COMPLETED else _FAILED)

    def trial_interrupted(self, number: int) -> None:
        """Print that the trial was interrupted."""
        if trial := self._progress.trial_interrupted(number):
            self.note(f"{title(number, trial.row.name)}: interrupted")

    def worker_lost(self, number: int) -> None:
        """Print that another worker will resume the trial."""
        if trial := self._progress.trial_interrupted(number):
            lost = "worker killed or crashed; another worker will resume the trial"
            self.note(f"{title(number, trial.row.name)}: {lost}")

    def status_polled(self, status: StudyStatus) -> None:
        """Print the trials that other processes have finished, and the number of trials added to the study."""
        added, ended = self._progress.status_polled(status)
        for row in ended:
            self._print(row_line(row, status.monitor), _FAILED if row.state is RowState.FAILED else _COMPLETED)
        if added:
            trials = counted(added, "trial was", "trials were")
            self.note(f"{trials} added to the study, {status.total:,} in total")

    def run_ended(self, summary: RunSummary) -> None:
        """Print the summary of the run."""
        if self._summary_console is not None:
            print_summary(self._summary_console, summary)
