"""A display that prints plain lines, for logs, pipes and terminals that cannot redraw."""

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
from tuner.display.terminal import ignoring_write_errors, printable
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_DATASET_LINES = 10
_WIDTH = 80


class ProgressDisplay(PrintingDisplay):
    """A display that prints a line for every change and every epoch, as commands do without a terminal.

    A subclass can override any event of `Display`.

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
        """Set the stream for the progress (default: standard error) and the console for the summary (None: no summary).

        If the stream fails (a closed pipe, a full disk), training continues without output.
        """
        super().__init__(summary_console)
        self._stream = ignoring_write_errors(stream or sys.stderr)
        self._dataset_tenths = 0
        self._repeating: set[int] = set()  # resumed trials whose earlier epochs are being sent again
        self._had_parallel_trials = False

    def dataset_progress(self, done: int, total: int) -> None:
        """Print a line for every tenth of the dataset."""
        tenths = done * _DATASET_LINES // total
        if tenths > self._dataset_tenths:
            self._dataset_tenths = tenths
            self.note(f"dataset: {done:,} of {total:,} images generated")

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """Print the trials that are already finished, and the number of pending trials."""
        super().run_started(planned_trials, finished)
        if pending := len(planned_trials) - len(finished):
            kind = "trials" if any(map(is_search_trial_name, planned_trials)) else "experiments"
            planned = len(planned_trials)
            self.note(f"{pending} of {planned} {kind} to train; validation metrics after each epoch:")

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, resumed: bool) -> None:
        """Print the trial's name and main settings, and the sampled settings of a search trial."""
        self._progress.trial_started(number, name, config)
        self._had_parallel_trials |= len(self._progress.own_trials) > 1
        if resumed:
            self._repeating.add(number)
        remarks = ["resumed"] if resumed else []
        progress = self._progress
        position = f"[{progress.position(number)}/{progress.status.total}] " if progress.is_polled else ""
        self.note(f"{position}{title(number, name, *remarks)}: {settings(config)}")
        if is_search_trial_name(name):
            for line in wrapped(further_settings(config), _WIDTH - 2):
                self.note(f"  {line}")

    def batch(self, number: int, done: int, total: int) -> None:
        """Update the progress of the epoch; print the epoch at which a trial resumes."""
        super().batch(number, done, total)
        if number in self._repeating and (trial := self._progress.own_trials.get(number)):
            self._repeating.remove(number)
            self.note(f"{self._prefix(trial)}  resumes at epoch {trial.epoch}")

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Print a line with the metrics of a finished epoch."""
        super().epoch_ended(number, metrics, signal)
        trial = self._progress.own_trials.get(number)
        if trial is None or number in self._repeating:
            return
        epochs, remaining = trial.config.num_epochs, self._progress.remaining_seconds(trial.row)
        self.note(
            f"{self._prefix(trial)}  {metrics.epoch:>{len(str(epochs))}}/{epochs}"
            f"  char {metrics.val_char_accuracy:.4f}  seq {metrics.val_seq_accuracy:.4f}  loss {metrics.val_loss:.4f}"
            f"  best {signal.best or 0:.4f}  {metrics.epoch_seconds:.1f} s  ETA <= {clock(remaining or 0)}"
        )

    def _print(self, text: str, style: str = "") -> None:
        self._stream.write(printable(f"{text}\n", kept="\n"))
        self._stream.flush()

    def _prefix(self, trial: RunningTrial) -> str:
        """Return the trial's name if trials have run in parallel, to distinguish their lines; otherwise no text."""
        return trial.row.name if self._had_parallel_trials else ""
