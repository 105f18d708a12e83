"""Pictures of a training while it runs and when it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuner.data.pixel_cache import CachedSplit
from tuner.training.checkpoints import DamagedCheckpointError, load_checkpoint
from tuner.training.confusion_counts import digit_confusion
from tuner.training.history import EpochMetrics
from tuner.training.plots import (
    CONFUSION_MATRIX,
    LEARNING_CURVES,
    WORST_READINGS,
    draw_confusion_matrix,
    draw_learning_curves,
    draw_readings,
    read_wrong,
    worst_first,
)

log = logging.getLogger(__name__)

Pictures = Mapping[str, bytes]

# While the training runs, pictures may take this share of its time.
_SHARE = 0.005
# What the first ones are taken to cost: a training of seconds has none before its end.
_SUPPOSED_SECONDS = 0.1


class Illustrator:
    """Draws a training's pictures as often as it costs next to nothing."""

    def __init__(self, validation: CachedSplit, best: Path) -> None:
        """Take what the pictures show.

        Args:
            validation: The images that the training is validated with.
            best: Where its best checkpoint is or will be.
        """
        self._validation = validation
        self._best = best
        self._began = time.monotonic()
        self._spent = _SUPPOSED_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether new pictures are worth their time."""
        return self._spent <= _SHARE * (time.monotonic() - self._began)

    def draw(self, history: Sequence[EpochMetrics]) -> Pictures:
        """Draw what there is to see.

        Args:
            history: The finished epochs.

        Returns:
            PNG files by name: `LEARNING_CURVES` once an epoch has finished; `CONFUSION_MATRIX` and `WORST_READINGS`,
            of the best epoch, once there is its checkpoint.
        """
        started = time.monotonic()
        try:
            return self._draw(history)
        except Exception:  # a checkpoint from elsewhere, say: no picture is worth a training
            log.exception("no pictures")
            return {}
        finally:
            self._spent += time.monotonic() - started

    def _draw(self, history: Sequence[EpochMetrics]) -> Pictures:
        if not history:
            return {}
        try:
            state = load_checkpoint(self._best)
        except (FileNotFoundError, DamagedCheckpointError) as error:
            log.warning("no pictures of readings: %s", error)
            return {LEARNING_CURVES: draw_learning_curves(history, None)}
        epoch = state["metrics"]["epoch"]
        rows, confidence = (state["validation"][name].numpy() for name in ("rows", "confidence"))
        labels = self._validation.labels
        wrong = read_wrong(rows, labels)
        worst = worst_first(wrong, confidence)
        title = f"Worst readings, epoch {epoch}: {wrong.sum():,} of {len(wrong):,} validation images are read wrong"
        return {
            LEARNING_CURVES: draw_learning_curves(history, epoch),
            CONFUSION_MATRIX: draw_confusion_matrix(digit_confusion(rows, labels)),
            WORST_READINGS: draw_readings(
                self._validation.images[worst], rows[worst], labels[worst], confidence[worst], title
            ),
        }
