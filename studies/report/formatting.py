"""How the report formats numbers, times and settings."""

from __future__ import annotations

import math
from datetime import timedelta

NOTHING = "–"


def share_text(value: float | None) -> str:
    """Return an accuracy, or a value of the monitored metric."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.4f}"


def duration_text(seconds: float) -> str:
    """Return hours, minutes and seconds, and days where there are some."""
    return str(timedelta(seconds=round(seconds)))
