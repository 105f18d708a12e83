"""Plots of a training run as PNG files: learning curves, confusion matrix, worst readings.

The plots are drawn from plain numbers, so that this package does not depend on the rest of `tuner.training`.
"""

from __future__ import annotations

from collections.abc import Mapping

LEARNING_CURVES = "learning_curves.png"
CONFUSION_MATRIX = "confusion_matrix.png"
WORST_READINGS = "worst_readings.png"

Plots = Mapping[str, bytes]
"""The bytes of PNG files, keyed by the file names above."""
