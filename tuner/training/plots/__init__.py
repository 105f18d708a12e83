"""Plots of a training, as PNG: learning curves, confusion matrix, worst readings.

They are drawn from plain numbers, so that this package needs nothing else of the training.
"""

from __future__ import annotations

from collections.abc import Mapping

from tuner.training.plots.confusion_matrix import draw_confusion_matrix
from tuner.training.plots.learning_curves import draw_learning_curves
from tuner.training.plots.readings_sheet import draw_readings, read_wrong, worst_first

LEARNING_CURVES = "learning_curves.png"
CONFUSION_MATRIX = "confusion_matrix.png"
WORST_READINGS = "worst_readings.png"

Plots = Mapping[str, bytes]
"""PNG files by the names above."""

__all__ = [
    "CONFUSION_MATRIX",
    "LEARNING_CURVES",
    "WORST_READINGS",
    "Plots",
    "draw_confusion_matrix",
    "draw_learning_curves",
    "draw_readings",
    "read_wrong",
    "worst_first",
]
