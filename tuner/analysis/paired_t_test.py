"""Whether one of two trainings is really better, judged by pairs that differ in nothing but them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95

_NO_WIDTH = 1e-12


@dataclass(frozen=True)
class Comparison:
    """One configuration against another, trained on the same seeds.

    Attributes:
        first: Name of the one that is to be better.
        second: Name of the other.
        seeds: Pairs compared.
        difference: Mean of first minus second; None without a pair.
        low: Lower end of the difference's interval; None with fewer than two pairs.
        high: Its upper end; None with fewer than two pairs.
    """

    first: str
    second: str
    seeds: int
    difference: float | None
    low: float | None
    high: float | None

    @property
    def better(self) -> str | None:
        """The one that is shown to be better; None if neither is."""
        if self.low is None or self.high is None or self._is_always_the_same or self.low <= 0 <= self.high:
            return None
        return self.first if self.low > 0 else self.second

    def sentence(self, what: str) -> str:
        """Say what the comparison shows.

        Args:
            what: What is compared, for example ``test char``.
        """
        if self.difference is None:
            return f"{self.first} and {self.second} cannot be compared: there is no seed on which both were trained"
        if self.low is None or self.high is None or self._is_always_the_same:
            ahead = f"{self.first} minus {self.second}: {self.difference:+.4f} {what}"
            seeds = "on one seed" if self.seeds == 1 else f"the same on all {self.seeds} seeds"
            return f"{ahead}, {seeds}, which says nothing of how much seeds matter; give more --seeds"
        if self.better is None:
            told, low, high = f"no difference shown between {self.first} and {self.second}", self.low, self.high
            return f"{told}: {self.difference:+.4f} {what} ({self._interval(low, high)})"
        if self.better == self.first:
            worse, difference, low, high = self.second, self.difference, self.low, self.high
        else:
            worse, difference, low, high = self.first, -self.difference, -self.high, -self.low
        return f"{self.better} is better than {worse} by {difference:.4f} {what} ({self._interval(low, high)})"

    @property
    def _is_always_the_same(self) -> bool:
        """Whether every seed gave the same difference: accuracies are counts, so a few seeds may well do by chance."""
        return self.low is not None and self.high is not None and self.high - self.low <= _NO_WIDTH

    def _interval(self, low: float, high: float) -> str:
        return f"{LEVEL * 100:g} % interval {low:.4f} to {high:.4f}, {self.seeds} seeds"


def compare(first: str, second: str, pairs: Sequence[tuple[float, float]]) -> Comparison:
    """Compare two configurations by their paired figures, first and second on the same seed.

    The seed is drawn anew for every pair and common to both, so what it does to both of them falls out of the
    differences. Their mean's interval is Student's: mean -+ t s / sqrt(n), with n - 1 degrees of freedom.

    Args:
        first: Name of the one that is to be better.
        second: Name of the other.
        pairs: The figures; higher is better.
    """
    differences = [one - other for one, other in pairs]
    if not differences:
        return Comparison(first, second, 0, None, None, None)
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Comparison(first, second, 1, mean, None, None)
    reach = _reach(differences)
    return Comparison(first, second, len(differences), mean, mean - reach, mean + reach)


def _reach(values: Sequence[float]) -> float:
    """Return how far the interval of a mean reaches to either side."""
    # A second of imports, for one number.
    from scipy.special import stdtrit

    freedom = len(values) - 1
    quantile = float(stdtrit(freedom, (1 + LEVEL) / 2))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))
