"""How the report formats numbers, times and settings."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from search_spaces.diagnostics.diff import as_written

NOTHING = "–"


def reason_text(why: str | None) -> str:
    """Return the reason why a trial ended, readable; "" if it has not ended."""
    return (why or "").replace("_", " ")


def share_text(value: float | None) -> str:
    """Return an accuracy, or a value of the monitored metric."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.4f}"


def seconds_text(seconds: float | None) -> str:
    """Return the seconds of an epoch."""
    return NOTHING if seconds is None else f"{seconds:.1f}"


def duration_text(seconds: float | None) -> str:
    """Return hours, minutes and seconds, and days where there are some."""
    return NOTHING if seconds is None else str(timedelta(seconds=round(seconds)))


def setting_text(value: Any, digits: int = 4) -> str:
    """Return the value of a setting, long numbers shortened to so many digits."""
    return f"{value:.{digits}g}" if isinstance(value, float) else as_written(value)
