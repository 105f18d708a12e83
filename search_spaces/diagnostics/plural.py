"""Numbers and lists of names as text for messages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, thing: str, things: str = "") -> str:
    """Format a number with its noun: ``1 trial``, ``2 trials``, ``1,000 processes``."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def listed(names: Sequence[str], limit: int) -> str:
    """Join the first `limit` names and append the number of further names: ``a, b and 3 more``."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more:,} more" if more > 0 else "")
