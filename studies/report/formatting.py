"""Number and time formats of the report."""

from __future__ import annotations

import math
from datetime import timedelta

NOTHING = "–"


def value_text(value: float | None) -> str:
    """Format an accuracy or a value of the monitored metric with four decimals; a dash if it is None or not finite."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.4f}"


def duration_text(seconds: float) -> str:
    """Format a duration as ``h:mm:ss``, from 24 hours on with days: ``1 day, 0:05:00``."""
    return str(timedelta(seconds=round(seconds)))
