"""Progress as a picture at the foot of a terminal, above it a line for everything that is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from search_spaces import TrainingConfig
from studies import RowState, StudyStatus, TrialPhase, TrialRecord
from tuner.display.base import Display, RunSummary
from tuner.display.lines import added_line, finished_lines, row_line, title, trial_line
from tuner.display.live_view import bars, picture
from tuner.display.progress import RunProgress
from tuner.display.summary import print_summary
from tuner.display.terminal import console_on, drawn_at_once, forgiving
from tuner.signals import raise_if_requested
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

_REFRESH_SECONDS = 0.25
# Drawing takes longer the more trials there are; it never takes more than this share of the training's time.
_MOST_SHARE = 0.02


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
        with drawn_at_once(self._console):
            self._live.start()

    def note(self, text: str) -> None:
        """Print the note above the picture."""
        self._print(text)

    def dataset_progress(self, done: int, total: int) -> None:
        """Draw how far the dataset is."""
        self._images = (done, total)
        self._refresh()

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        """Print what is done already, and draw the rest."""
        self._images = (0, 0)
        self._progress.run_started(planned_trials, finished)
        for line in finished_lines(finished):
            self.note(line)
        if not self._progress.status.pending:
            self.note("nothing is left to train")

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, adopted: bool) -> None:
        """Draw the trial."""
        self._progress.trial_started(number, name, config)
        if adopted:
            self.note(f"{title(number, name)}: going on after an interruption")
        self._draw()

    def batch(self, number: int, done: int, total: int) -> None:
        """Redraw, if the last time is long enough ago."""
        raise_if_requested()
        self._progress.batch(number, done, total)
        self._refresh()

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        """Draw the epoch's figures."""
        self._progress.epoch_ended(number, metrics, signal)
        self._refresh()

    def trial_ended(self, record: TrialRecord) -> None:
        """Print how it ended."""
        self._progress.trial_ended(record)
        self._print_end(trial_line(record), completed=record.phase is TrialPhase.COMPLETED)

    def trial_interrupted(self, number: int) -> None:
        """Print that it is not at an end."""
        if trial := self._progress.worker_lost(number):
            self.note(f"{title(number, trial.name)}: left for later")
        self._draw()

    def worker_lost(self, number: int) -> None:
        """Print that it goes on elsewhere."""
        if trial := self._progress.worker_lost(number):
            self.note(f"{title(number, trial.name)}: its worker died; another one takes it up")
        self._draw()

    def status_polled(self, status: StudyStatus) -> None:
        """Draw what other processes do; print what they have ended and what was added."""
        news = self._progress.status_polled(status)
        for row in news.ended:
            self._print_end(row_line(row, status.monitor), completed=row.state is RowState.COMPLETED)
        if news.added:
            self.note(added_line(news.added, status.total))
        self._draw()

    def run_ended(self, summary: RunSummary) -> None:
        """Remove the picture and print the summary."""
        self.close()
        if self._summary_console is not None:
            print_summary(self._summary_console, summary)

    def close(self) -> None:
        """Remove the picture; the cursor is visible again."""
        if self._live.is_started:
            with drawn_at_once(self._console):
                self._live.stop()

    def _print_end(self, line: str, *, completed: bool) -> None:
        self._print(Text(line, style="green" if completed else "bold red"), soft_wrap=True)

    def _print(self, text: str | Text, *, soft_wrap: bool = False) -> None:
        with drawn_at_once(self._console):
            self._console.print(text, soft_wrap=soft_wrap)

    def _refresh(self) -> None:
        if time.monotonic() >= self._next_refresh:
            self._draw()

    def _draw(self) -> None:
        begun = time.monotonic()
        with drawn_at_once(self._console):
            self._live.refresh()
        ended = time.monotonic()
        self._next_refresh = ended + max(_REFRESH_SECONDS, (ended - begun) / _MOST_SHARE)

    def _picture(self) -> RenderableType:
        if self._images[1]:
            return bars(self._console.width, ("drawing the dataset", *self._images, "images"))
        return picture(self._progress, *self._console.size)
