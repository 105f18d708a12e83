"""Progress as a picture at the foot of a terminal, above it a line for everything that is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search_spaces import TrainingConfig
from studies import TrialPhase, TrialRecord
from tuner.display import Display, RunSummary
from tuner.display_summary import finished_line, print_summary, trial_line
from tuner.run_progress import RunProgress, clock
from tuner.screen import console_on, forgiving
from tuner.signals import raise_if_requested
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_REFRESH_SECONDS = 0.25


class LiveDisplay(Display):
    """Redraws bars, figures and times a few times a second, in the thread that reports them: none of its own."""

    def __init__(self, stream: TextIO, summary_console: Console | None) -> None:
        """Draw on a terminal.

        Args:
            stream: The terminal; when it is gone, the training goes on in silence.
            summary_console: Where the summary goes at the end; None for no summary.
        """
        self._console = console_on(forgiving(stream))
        self._summary_console = summary_console
        self._progress = RunProgress()
        self._images = (0, 0)
        self._next_refresh = 0.0
        self._live = Live(console=self._console, get_renderable=self._picture, auto_refresh=False, transient=True)
        self._live.start()

    def note(self, text: str) -> None:
        """Print the note above the picture."""
        self._console.print(text)

    def dataset_progress(self, done: int, total: int) -> None:
        """Draw how far the dataset is."""
        self._images = (done, total)
        self._refresh()

    def run_started(self, experiments: Mapping[str, TrainingConfig], finished: Sequence[TrialRecord]) -> None:
        """Print what is done already, and draw the rest."""
        self._images = (0, 0)
        self._progress.run_started(experiments, finished)
        for record in finished:
            self.note(finished_line(record))
        if len(finished) == len(experiments):
            self.note("nothing is left to train")

    def trial_started(self, name: str, number: int, config: TrainingConfig, *, adopted: bool) -> None:
        """Draw the experiment."""
        self._progress.trial_started(name, config)
        if adopted:
            self.note(f"{name} (trial {number}): going on after an interruption")
        self._live.refresh()

    def batch(self, done: int, total: int) -> None:
        """Redraw, if the last time is long enough ago."""
        raise_if_requested()
        self._progress.batches = (done, total)
        self._refresh()

    def epoch_ended(self, metrics: EpochMetrics, early_stopping: EarlyStopping) -> None:
        """Draw the epoch's figures."""
        self._progress.epoch_ended(metrics, early_stopping)
        self._refresh()

    def trial_ended(self, record: TrialRecord) -> None:
        """Print how it ended."""
        self._progress.trial_ended(record)
        done = record.phase is TrialPhase.COMPLETED
        self._console.print(Text(trial_line(record), style="green" if done else "bold red"), soft_wrap=True)
        self._live.refresh()

    def run_ended(self, summary: RunSummary) -> None:
        """Remove the picture and print the summary."""
        self.close()
        if self._summary_console is not None:
            print_summary(self._summary_console, summary)

    def close(self) -> None:
        """Remove the picture; the cursor is visible again."""
        self._live.stop()

    def _refresh(self) -> None:
        now = time.monotonic()
        if now >= self._next_refresh:
            self._next_refresh = now + _REFRESH_SECONDS
            self._live.refresh()

    def _picture(self) -> RenderableType:
        if self._images[1]:
            return _bars(("drawing the dataset", *self._images, "images"))
        progress = self._progress
        if not progress.total:
            return Text("")
        experiments = ("experiments", progress.ended, progress.total, "done")
        if not progress.name:
            return _bars(experiments)
        bars = _bars(
            experiments,
            (progress.name, progress.epoch, progress.config.num_epochs, "epochs"),
            (f"epoch {progress.epoch + 1}", *progress.batches, "batches"),
        )
        return Group(bars, *_figures(progress), Text(_times(progress)))


def _bars(*rows: tuple[str, int, int, str]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(max_width=24, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    for name, done, total, unit in rows:
        grid.add_row(name, ProgressBar(total=max(1, total), completed=done), f"{done:,}/{total:,} {unit}")
    return grid


def _figures(progress: RunProgress) -> list[Text]:
    metrics, signal, monitor = progress.metrics, progress.early_stopping, progress.config.early_stopping_monitor
    if metrics is None or signal is None:
        return [Text("the first epoch is on its way", style="dim")]
    now = (
        f"now   char {metrics.val_char_accuracy:.4f}  seq {metrics.val_seq_accuracy:.4f}  loss {metrics.val_loss:.4f}"
        f"  (training loss {metrics.train_loss:.4f})"
    )
    patience = f"{signal.waited} of {signal.patience} epochs without gain"
    best = f"best  {monitor} {signal.best or 0:.4f} in epoch {signal.best_epoch}  ({patience})"
    return [Text(now), Text(best, style="green" if signal.waited == 0 else "")]


def _times(progress: RunProgress) -> str:
    left, in_all = progress.seconds_left(), progress.seconds_left_in_all()
    if left is None:
        return "left  known when an epoch has been timed"
    waiting = progress.total - progress.ended - 1
    if waiting == 0:
        return f"left  at most {clock(left)}"
    others = "the others are not timed yet" if in_all is None else f"{clock(in_all)} with the {waiting} waiting"
    return f"left  at most {clock(left)}, {others}"
