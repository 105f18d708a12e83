"""Progress as plain lines, for logs, pipes and terminals that cannot redraw."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console

from search_spaces import TrainingConfig
from search_spaces.diagnostics.names import is_search_trial_name
from studies import TrialRecord
from tuner.display.lines import clock, further_settings, settings, title, wrapped
from tuner.display.printing_display import PrintingDisplay
from tuner.display.progress import RunningTrial
from tuner.display.terminal import forgiving, printable
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_DATASET_LINES = 10
_WIDTH = 80


class ProgressDisplay(PrintingDisplay):
    """Prints a line for every change, and one for each epoch, as the command line does where there is no terminal.

    A subclass overrides the events of `Display` that it wants to handle itself.

    Example::

        from tuner import HyperparameterTuner, ProgressDisplay

        class SlowEpochs(ProgressDisplay):
            def epoch_ended(self, number, metrics, signal):
                super().epoch_ended(number, metrics, signal)
                if metrics.epoch_seconds > 30:
                    self.note(f"trial {number}: epoch {metrics.epoch} took {metrics.epoch_seconds:.0f} s")

        HyperparameterTuner("experiments.yaml", display=SlowEpochs()).run_experiments()
    """

    def __init__(self, stream: TextIO | None = None, summary_console: Console | None = None) -> None:
        """Print to a stream, by default standard error, and at the end a summary to a console; None for no summary.

        When the stream fails (a closed pipe, a full disk), the training continues without output.
        """
        super().__init__(summary_console)
        self._stream = forgiving(stream or sys.stderr)
        self._dataset_tenths = 0
        self._repeating: set[int] = set()  # trials whose epochs before an interruption are being sent again
        self._several = False  # whether more than one trial has been running at a time

    def dataset_progress(self, done: int, total: int) -> None:
        """Print a line for every tenth of the dataset."""
        tenths = done * _DATASET_LINES // total
        if tenths > self._dataset_tenths:
            self._dataset_tenths = tenths
            self.note(f"dataset: {done:,} of {total:,} images drawn")

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """Print which trials are finished already, and the number of pending ones."""
        super().run_started(planned_trials, finished)
        if pending := len(planned_trials) - len(finished):
            what = "trials" if any(map(is_search_trial_name, planned_trials)) else "experiments"
            self.note(f"{pending} of {len(planned_trials)} {what} to train; a line for each epoch, on validation data:")

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, resumed: bool) -> None:
        """Print which trial starts, with the sampled settings of a search trial."""
        self._progress.trial_started(number, name, config)
        self._several |= len(self._progress.own) > 1
        if resumed:
            self._repeating.add(number)
        again = ["going on after an interruption"] if resumed else []
        progress = self._progress
        position = f"[{progress.position(number)}/{progress.status.total}] " if progress.is_polled else ""
        self.note(f"{position}{title(number, name, *again)}: {settings(config)}")
        if is_search_trial_name(name):
            for line in wrapped(further_settings(config), _WIDTH - 2):
                self.note(f"  {line}")

    def batch(self, number: int, done: int, total: int) -> None:
        """Print only at which epoch an interrupted trial continues."""
        super().batch(number, done, total)
        if number in self._repeating and (trial := self._progress.own.get(number)):
            self._repeating.remove(number)
            self.note(f"{self._prefix(trial)}  going on with epoch {trial.epoch}")

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Print the results of an epoch."""
        super().epoch_ended(number, metrics, signal)
        trial = self._progress.own.get(number)
        if trial is None or number in self._repeating:
            return
        epochs, remaining = trial.config.num_epochs, self._progress.remaining_seconds(trial.row)
        self.note(
            f"{self._prefix(trial)}  {metrics.epoch:>{len(str(epochs))}}/{epochs}"
            f"  char {metrics.val_char_accuracy:.4f}  seq {metrics.val_seq_accuracy:.4f}  loss {metrics.val_loss:.4f}"
            f"  best {signal.best or 0:.4f}  {metrics.epoch_seconds:.1f} s  <= {clock(remaining or 0)} left"
        )

    def _print(self, text: str, style: str = "") -> None:
        self._stream.write(printable(f"{text}\n", kept="\n"))
        self._stream.flush()

    def _prefix(self, trial: RunningTrial) -> str:
        """Return what tells the lines of several workers apart."""
        return trial.row.name if self._several else ""
