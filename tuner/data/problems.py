"""Telling many problems of one kind without flooding the screen."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_TOLD = 20


def first_problems(problems: Sequence[str]) -> list[str]:
    """Return the first twenty of `problems`, and how many more there are."""
    told = list(problems[:_MOST_TOLD])
    if len(problems) > _MOST_TOLD:
        told.append(f"... and {len(problems) - _MOST_TOLD} more like these")
    return told
