"""Numbers and lists of things in messages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, thing: str, things: str = "") -> str:
    """Return ``1 trial``, ``2 trials``, ``1,000 processes``."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def listed(names: Sequence[str], most: int) -> str:
    """Return the first names, at most `most` of them, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
