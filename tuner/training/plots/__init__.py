"""Pictures of a training, as PNG: its curves, which digits it confuses, and what it reads worst."""

from __future__ import annotations

from tuner.training.plots.confusion_matrix import draw_confusion_matrix
from tuner.training.plots.learning_curves import draw_learning_curves
from tuner.training.plots.readings_sheet import draw_readings, read_wrong, worst_first

# What they are called as files.
LEARNING_CURVES = "learning_curves.png"
CONFUSION_MATRIX = "confusion_matrix.png"
WORST_READINGS = "worst_readings.png"

__all__ = [
    "CONFUSION_MATRIX",
    "LEARNING_CURVES",
    "WORST_READINGS",
    "draw_confusion_matrix",
    "draw_learning_curves",
    "draw_readings",
    "read_wrong",
    "worst_first",
]
