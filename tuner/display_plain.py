"""Progress as plain lines, for logs, pipes and terminals that cannot redraw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console

from search_spaces import TrainingConfig
from studies import TrialRecord
from tuner.display import Display, RunSummary
from tuner.display_summary import finished_line, print_summary, trial_line
from tuner.run_progress import RunProgress, clock
from tuner.screen import forgiving
from tuner.signals import raise_if_requested
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_DATASET_LINES = 10


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
        self._retelling = False

    def note(self, text: str) -> None:
        """Write the note."""
        self._write(text)

    def dataset_progress(self, done: int, total: int) -> None:
        """Write a line now and then."""
        tenths = done * _DATASET_LINES // total
        if tenths > self._drawn_tenths:
            self._drawn_tenths = tenths
            self._write(f"dataset: {done:,} of {total:,} images drawn")

    def run_started(self, experiments: Mapping[str, TrainingConfig], finished: Sequence[TrialRecord]) -> None:
        """Say what is to be done, and what is done already."""
        self._progress.run_started(experiments, finished)
        for record in finished:
            self._write(finished_line(record))
        left = len(experiments) - len(finished)
        if left:
            self._write(
                f"{left} of {len(experiments)} experiments to train; a line for each epoch, on validation data:"
            )
        else:
            self._write("nothing is left to train")

    def trial_started(self, name: str, number: int, config: TrainingConfig, *, adopted: bool) -> None:
        """Say which experiment it is."""
        self._progress.trial_started(name, config)
        self._retelling = adopted  # the epochs before the interruption come first, and were written then
        place = f"[{self._progress.ended + 1}/{self._progress.total}]"
        again = ", going on after an interruption" if adopted else ""
        self._write(f"{place} {name} (trial {number}{again}): {_settings(config)}")

    def batch(self, done: int, total: int) -> None:
        """Write nothing, but where an interrupted training goes on."""
        raise_if_requested()
        if self._retelling:
            self._retelling = False
            self._write(f"  going on with epoch {self._progress.epoch + 1}")

    def epoch_ended(self, metrics: EpochMetrics, early_stopping: EarlyStopping) -> None:
        """Write the epoch's figures."""
        self._progress.epoch_ended(metrics, early_stopping)
        if self._retelling:
            return
        of = self._progress.config.num_epochs
        left = self._progress.seconds_left()
        self._write(
            f"  {metrics.epoch:>{len(str(of))}}/{of}  char {metrics.val_char_accuracy:.4f}"
            f"  seq {metrics.val_seq_accuracy:.4f}  loss {metrics.val_loss:.4f}  best {early_stopping.best or 0:.4f}"
            f"  {metrics.epoch_seconds:.1f} s  <= {clock(left or 0)} left"
        )

    def trial_ended(self, record: TrialRecord) -> None:
        """Say how it ended."""
        self._progress.trial_ended(record)
        self._write(trial_line(record))

    def run_ended(self, summary: RunSummary) -> None:
        """Print the summary."""
        if self._summary_console is not None:
            print_summary(self._summary_console, summary)

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


def _settings(config: TrainingConfig) -> str:
    return (
        f"{config.model_name}, batch {config.batch_size}, lr {config.learning_rate:g}, {config.scheduler_type}, "
        f"up to {config.num_epochs} epochs"
    )
