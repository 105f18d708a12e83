"""What came of looking at a study."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Looks:
    """What came of looking.

    Attributes:
        counts: How often each was done.
        problems: What failed, one text each.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def note(self, name: str, problem: str = "") -> None:
        """Count a look, and keep what was wrong with it."""
        self.counts[name] += 1
        if problem:
            self.problems.append(f"{name}: {problem}")
