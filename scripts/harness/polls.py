"""Polling a study while it trains, as its users do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Polls:
    """What polling a study came to.

    Attributes:
        counts: How often each kind of poll was done.
        problems: One text for each that failed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def record(self, name: str, *problems: str) -> None:
        """Count a poll, and keep its problems; an empty text is none."""
        self.counts[name] += 1
        self.problems += [f"{name}: {problem}" for problem in problems if problem]
