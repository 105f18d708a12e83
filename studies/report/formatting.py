"""Number and time formats of the report."""

from __future__ import annotations

import math
from datetime import timedelta

NOTHING = "–"


def value_text(value: float | None) -> str:
    """Return an accuracy or a value of the monitored metric with four decimals; a dash if it is unknown."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.4f}"


def duration_text(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds, with days if there are any."""
    return str(timedelta(seconds=round(seconds)))
