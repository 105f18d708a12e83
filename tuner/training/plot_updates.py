"""Plots of a training run, updated during the run and drawn once more at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from tuner.data.pixel_cache import CachedSplit
from tuner.training.checkpoints import DamagedCheckpointError, load_checkpoint
from tuner.training.confusion_counts import count_confusions
from tuner.training.history import METRIC_NAMES, EpochMetrics
from tuner.training.plots import (
    CONFUSION_MATRIX,
    LEARNING_CURVES,
    WORST_READINGS,
    Plots,
    draw_confusion_matrix,
    draw_learning_curves,
    draw_readings,
    read_wrong,
    worst_first,
)

log = logging.getLogger(__name__)

# Maximum fraction of the time of a training run that is spent on plots during the run.
_FRACTION = 0.005
# Assumed duration of the first plots, which also import matplotlib. A run under 100 s is plotted only at its end.
_FIRST_SECONDS = 0.5


class PlotUpdates:
    """Draws the plots of a training run, and limits the time spent on plots during the run."""

    def __init__(self, validation: CachedSplit, best: Path) -> None:
        """Set the validation images and the path of the best checkpoint; the time of the run starts now."""
        self._validation = validation
        self._best = best
        self._started = time.monotonic()
        self._spent_s = _FIRST_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether the plots so far took no more than the maximum fraction of the time since the start of the run."""
        return self._spent_s <= _FRACTION * (time.monotonic() - self._started)

    def draw(self, history: Sequence[EpochMetrics]) -> Plots:
        """Draw all plots for which data is available.

        Args:
            history: The finished epochs.

        Returns:
            `LEARNING_CURVES` if an epoch has finished; `CONFUSION_MATRIX` and `WORST_READINGS` of the best epoch if its
            checkpoint is intact. Empty if drawing fails, because then the error is only logged.
        """
        started = time.monotonic()
        try:
            return self._draw(history)
        except Exception:  # for example a checkpoint without readings
            log.exception("the plots cannot be drawn; the training continues without them")
            return {}
        finally:
            self._spent_s += time.monotonic() - started

    def _draw(self, history: Sequence[EpochMetrics]) -> Plots:
        if not history:
            return {}
        metrics = {name: [epoch.value(name) for epoch in history] for name in METRIC_NAMES}
        try:
            state = load_checkpoint(self._best)
        except (FileNotFoundError, DamagedCheckpointError) as error:
            log.warning("the best checkpoint cannot be loaded (%s); plotting only the learning curves", error)
            return {LEARNING_CURVES: draw_learning_curves(metrics, None)}
        best_epoch = state["metrics"]["epoch"]
        rows, confidence = (state["validation"][name].numpy() for name in ("rows", "confidence"))
        labels, vocabulary = self._validation.labels, self._validation.vocabulary
        wrong = read_wrong(rows, labels, vocabulary)
        worst = worst_first(wrong, confidence)
        title = f"Worst readings, epoch {best_epoch}: {wrong.sum():,} of {len(wrong):,} validation images are misread"
        return {
            LEARNING_CURVES: draw_learning_curves(metrics, best_epoch),
            CONFUSION_MATRIX: draw_confusion_matrix(
                count_confusions(rows, labels, vocabulary.size), vocabulary.characters
            ),
            WORST_READINGS: draw_readings(
                self._validation.images[worst], rows[worst], labels[worst], confidence[worst], title, vocabulary
            ),
        }
