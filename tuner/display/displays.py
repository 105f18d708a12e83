"""Displays that print a line for every change: plain lines for logs and pipes, or above a live view on a terminal."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live

from search_spaces import TrainingConfig
from search_spaces.diagnostics.names import is_search_trial_name
from search_spaces.diagnostics.wording import counted
from studies import RowState, StudyStatus, TrialPhase, TrialRecord
from tuner.display.events import Display, RunSummary
from tuner.display.lines import clock, finished_lines, further_settings, row_line, settings, title, trial_line, wrapped
from tuner.display.progress import RunningTrial, RunProgress
from tuner.display.summary import print_summary
from tuner.display.tables import bars, live_view
from tuner.display.terminal import console_on, ignoring_write_errors, printable, synchronized_output
from tuner.signals import raise_if_requested
from tuner.training.history import EarlyStopping, EpochMetrics

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


_REFRESH_SECONDS = 0.25
# Drawing takes longer the more trials there are, so it may use at most this fraction of the total time.
_MAX_DRAWING_FRACTION = 0.02


class LiveDisplay(PrintingDisplay):
    """A display that redraws a live view a few times a second, in the thread that sends the events."""

    def __init__(self, stream: TextIO, summary_console: Console | None) -> None:
        """Start the live view on a terminal; if the terminal is closed, training continues without output."""
        super().__init__(summary_console)
        self._console = console_on(ignoring_write_errors(stream))
        self._images = (0, 0)
        self._next_refresh = 0.0
        self._live = Live(console=self._console, get_renderable=self._view, auto_refresh=False, transient=True)
        with synchronized_output(self._console):
            self._live.start()

    def dataset_progress(self, done: int, total: int) -> None:
        """Show the progress of the dataset generator until the dataset is complete."""
        self._images = (0, 0) if done == total else (done, total)
        self._refresh()

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, resumed: bool) -> None:
        """Add the trial to the live view; print a note if the trial was resumed."""
        self._progress.trial_started(number, name, config)
        if resumed:
            self.note(f"{title(number, name)}: resumed")
        self._draw()

    def status_polled(self, status: StudyStatus) -> None:
        """Print the changes that other processes made, and redraw the live view."""
        super().status_polled(status)
        self._draw()

    def run_ended(self, summary: RunSummary) -> None:
        """Remove the live view and print the summary."""
        self.close()
        super().run_ended(summary)

    def close(self) -> None:
        """Remove the live view and show the cursor again."""
        if self._live.is_started:
            with synchronized_output(self._console):
                self._live.stop()

    def _print(self, text: str, style: str = "") -> None:
        with synchronized_output(self._console):
            self._console.print(text, style=style, soft_wrap=bool(style))  # Rich redraws the view below it

    def _refresh(self) -> None:
        if time.monotonic() >= self._next_refresh:
            self._draw()

    def _draw(self) -> None:
        started = time.monotonic()
        with synchronized_output(self._console):
            self._live.refresh()
        ended = time.monotonic()
        self._next_refresh = ended + max(_REFRESH_SECONDS, (ended - started) / _MAX_DRAWING_FRACTION)

    def _view(self) -> RenderableType:
        if self._images[1]:
            return bars(self._console.width, ("generating the dataset", *self._images, "images"))
        return live_view(self._progress, *self._console.size)
