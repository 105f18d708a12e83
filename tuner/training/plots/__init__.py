"""Plots of a training, as PNG: learning curves, confusion matrix, worst readings.

They are drawn from plain numbers, so that this package does not depend on the rest of the training.
"""

from __future__ import annotations

from collections.abc import Mapping

LEARNING_CURVES = "learning_curves.png"
CONFUSION_MATRIX = "confusion_matrix.png"
WORST_READINGS = "worst_readings.png"

Plots = Mapping[str, bytes]
"""PNG files by the names above."""
