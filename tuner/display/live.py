"""A display with a live view at the bottom of a terminal, and a printed line above the view for every change."""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live

from search_spaces import TrainingConfig
from studies import StudyStatus
from tuner.display.base import RunSummary
from tuner.display.lines import title
from tuner.display.live_view import bars, live_view
from tuner.display.printing_display import PrintingDisplay
from tuner.display.terminal import console_on, ignoring_write_errors, synchronized_output

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
