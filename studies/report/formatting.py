"""Figures and names as the report writes them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from search_spaces.diagnostics.diff import as_written

NOTHING = "–"


def counted(number: int, thing: str, things: str = "") -> str:
    """Return ``1 trial``, ``2 trials``, ``2 processes``."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def listed(names: list[str], most: int) -> str:
    """Return the first few names in a line, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def reason_text(why: str | None) -> str:
    """Return why a trial ended, in words; "" if it has not."""
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


def moment_text(moment: datetime | None) -> str:
    """Return a local time."""
    return NOTHING if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def setting_text(value: Any, digits: int = 4) -> str:
    """Return the value of a setting, long numbers shortened to so many digits."""
    return f"{value:.{digits}g}" if isinstance(value, float) else as_written(value)
