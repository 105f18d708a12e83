"""Updates of a trial's page in the dashboard while this process is training the trial."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Mapping

from search_spaces import TrainingConfig
from search_spaces.diagnostics.disk import is_full_or_read_only
from studies import Claim, OutputFolder, Progress, TrialOutcome, save_artifact, write_ended_note, write_running_note
from tuner.training.history import EarlyStopping, EpochMetrics
from tuner.training.plots import Plots
from tuner.training.recorder import CONFIG_FILE, config_yaml

log = logging.getLogger(__name__)

_NOTE_EVERY_S = 10.0


class DashboardUpdates:
    """Keeps the note, plots and settings of a trial up to date until the trial's result is reported to the study."""

    def __init__(self, claim: Claim, folder: OutputFolder) -> None:
        self._claim = claim
        self._folder = folder
        self._epoch_seconds: list[float] = []
        self._progress = Progress()
        self._unsaved: dict[str, bytes] = {}
        self._next_note = time.monotonic() + _NOTE_EVERY_S

    def start(self, config: TrainingConfig) -> None:
        """Save the configuration, and write the first note unless the trial is resumed."""
        self._save({CONFIG_FILE: config_yaml(config).encode()})
        if not self._claim.resumed:  # a resumed trial already has a note with more progress
            self._write_note()

    def epoch_ended(self, metrics: EpochMetrics, early_stopping: EarlyStopping) -> None:
        """Record a finished epoch, and update the progress in the trial's note if the note is not recent."""
        self._epoch_seconds.append(metrics.epoch_seconds)
        median = statistics.median(self._epoch_seconds)
        epochs, best_epoch = len(self._epoch_seconds), early_stopping.best_epoch or None
        self._progress = Progress(epochs, early_stopping.best, best_epoch, median)
        if time.monotonic() >= self._next_note:
            self._write_note()

    def show_plots(self, plots: Plots) -> None:
        """Save new plots, and update the progress in the trial's note."""
        self._save(plots)
        self._write_note()

    def end(self, outcome: TrialOutcome, value: float | None) -> None:
        """Save files that could not be saved earlier, and write the trial's result into the note."""
        self._save({})
        write_ended_note(self._claim.trial, self._claim.record, outcome, value, self._folder)

    def _write_note(self) -> None:
        started = time.monotonic()
        write_running_note(self._claim.trial, self._claim.record, self._progress, self._folder)
        ended = time.monotonic()
        # Writing a note takes longer in larger studies, so limit it to about 1 % of the time.
        self._next_note = ended + max(_NOTE_EVERY_S, 100 * (ended - started))

    def _save(self, files: Mapping[str, bytes]) -> None:
        """Save files as artifacts of the trial, including files that could not be saved earlier."""
        self._unsaved |= files
        for name, content in list(self._unsaved.items()):
            try:
                save_artifact(self._claim.trial, self._folder, name, content)
            except OSError as error:
                if is_full_or_read_only(error):
                    raise
                # A trial must not fail because of a file that only the dashboard shows.
                if name in files:
                    log.warning("%s: cannot be saved for the dashboard (%s); the next update tries again", name, error)
            else:
                del self._unsaved[name]
