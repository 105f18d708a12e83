"""Progress as plain lines, for logs, pipes and terminals that cannot redraw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console

from search_spaces import TrainingConfig
from studies import StudyStatus, TrialRecord
from tuner.display.base import Display, RunSummary
from tuner.display.lines import (
    added_line,
    finished_lines,
    further_settings,
    row_line,
    settings,
    title,
    trial_line,
    wrapped,
)
from tuner.display.progress import RunningTrial, RunProgress, clock
from tuner.display.status_rows import is_search
from tuner.display.summary import print_summary
from tuner.display.terminal import forgiving
from tuner.signals import raise_if_requested
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_DATASET_LINES = 10
_WIDTH = 80


class PlainDisplay(Display):
    """Writes a line for everything that happens, and one for each epoch."""

    def __init__(self, stream: TextIO, summary_console: Console | None) -> None:
        """Write progress to a stream.

        Args:
            stream: Where lines go; when it breaks (a closed pipe, a full disk), the training goes on in silence.
            summary_console: Where the summary goes at the end; None for no summary.
        """
        self._stream = forgiving(stream)
        self._summary_console = summary_console
        self._progress = RunProgress()
        self._drawn_tenths = 0
        # The trials whose epochs before an interruption are being told, and how many there were so far.
        self._retelling: dict[int, int] = {}
        self._several = False  # whether more than one trial has been running at a time

    def note(self, text: str) -> None:
        """Write the note."""
        self._write(text)

    def dataset_progress(self, done: int, total: int) -> None:
        """Write a line now and then."""
        tenths = done * _DATASET_LINES // total
        if tenths > self._drawn_tenths:
            self._drawn_tenths = tenths
            self._write(f"dataset: {done:,} of {total:,} images drawn")

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """Say what is to be done, and what is done already."""
        self._progress.run_started(planned_trials, finished)
        for line in finished_lines(finished):
            self._write(line)
        status = self._progress.status
        waiting, total = status.pending, status.total
        if waiting:
            what = "trials" if any(map(is_search, planned_trials)) else "experiments"
            self._write(f"{waiting} of {total} {what} to train; a line for each epoch, on validation data:")
        else:
            self._write("nothing is left to train")

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, adopted: bool) -> None:
        """Say which trial it is, and what a search trial has drawn."""
        self._progress.trial_started(number, name, config)
        self._several |= len(self._progress.own) > 1
        # The epochs before an interruption are told first, and were written then.
        self._retelling.pop(number, None)
        if adopted:
            self._retelling[number] = 0
        place = f"[{self._progress.place(number)}/{self._progress.status.total}]"
        again = ["going on after an interruption"] if adopted else []
        self._write(f"{place} {title(number, name, *again)}: {settings(config)}")
        if is_search(name):
            for line in wrapped(further_settings(config), _WIDTH - 2):
                self._write(f"  {line}")

    def batch(self, number: int, done: int, total: int) -> None:
        """Write nothing, but where an interrupted training goes on."""
        raise_if_requested()
        self._progress.batch(number, done, total)
        if number in self._retelling and (trial := self._progress.own.get(number)):
            self._write(f"{self._whose(trial)}  going on with epoch {self._retelling.pop(number) + 1}")

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Write the epoch's figures."""
        self._progress.epoch_ended(number, metrics, signal)
        if number in self._retelling:
            self._retelling[number] = metrics.epoch
        trial = self._progress.own.get(number)
        if trial is None or number in self._retelling:
            return
        of, left = trial.config.num_epochs, self._progress.remaining_seconds(self._progress.row(trial.name))
        self._write(
            f"{self._whose(trial)}  {metrics.epoch:>{len(str(of))}}/{of}  char {metrics.val_char_accuracy:.4f}"
            f"  seq {metrics.val_seq_accuracy:.4f}  loss {metrics.val_loss:.4f}  best {signal.best or 0:.4f}"
            f"  {metrics.epoch_seconds:.1f} s  <= {clock(left or 0)} left"
        )

    def trial_ended(self, record: TrialRecord) -> None:
        """Say how it ended."""
        self._progress.trial_ended(record)
        self._write(trial_line(record))

    def trial_interrupted(self, number: int) -> None:
        """Say that it is not at an end."""
        if trial := self._progress.worker_lost(number):
            self._write(f"{title(number, trial.name)}: left for later")

    def worker_lost(self, number: int) -> None:
        """Say that it goes on elsewhere."""
        if trial := self._progress.worker_lost(number):
            self._write(f"{title(number, trial.name)}: its worker died; another one takes it up")

    def status_polled(self, status: StudyStatus) -> None:
        """Say what other processes have ended, and what was added."""
        news = self._progress.status_polled(status)
        for row in news.ended:
            self._write(row_line(row, status.monitor))
        if news.added:
            self._write(added_line(news.added, status.total))

    def run_ended(self, summary: RunSummary) -> None:
        """Print the summary."""
        if self._summary_console is not None:
            print_summary(self._summary_console, summary)

    def _whose(self, trial: RunningTrial) -> str:
        """Return what tells lines of several workers apart."""
        return trial.name if self._several else ""

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()
