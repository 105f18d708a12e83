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
        if self._interval is None or self._interval[0] <= 0 <= self._interval[1]:
            return None
        return self.first if self._interval[0] > 0 else self.second

    def sentence(self, what: str) -> str:
        """Say what the comparison shows.

        Args:
            what: What is compared, for example ``test char``.
        """
        if self.difference is None:
            return f"{self.first} and {self.second} cannot be compared: there is no seed on which both were trained"
        if self._interval is None:
            ahead = f"{self.first} minus {self.second}: {self.difference:+.4f} {what}"
            seeds = "on one seed" if self.seeds == 1 else f"the same on all {self.seeds} seeds"
            return f"{ahead}, {seeds}, which says nothing of how much seeds matter; give more --seeds"
        low, high = self._interval
        if self.better == self.second:
            other, difference, low, high = self.first, -self.difference, -high, -low
        else:
            other, difference = self.second, self.difference
        interval = f"{LEVEL * 100:g} % interval {low:.4f} to {high:.4f}, {self.seeds} seeds"
        if self.better is None:
            return f"no difference shown between {self.first} and {other}: {difference:+.4f} {what} ({interval})"
        return f"{self.better} is better than {other} by {difference:.4f} {what} ({interval})"

    @property
    def _interval(self) -> tuple[float, float] | None:
        """The interval; None if it is not known, or without width.

        Accuracies are counts, so a few seeds may all give the same difference by chance.
        """
        if self.low is None or self.high is None or self.high - self.low <= _NO_WIDTH:
            return None
        return self.low, self.high


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
    from scipy.special import stdtrit  # takes a second

    quantile = float(stdtrit(len(differences) - 1, (1 + LEVEL) / 2))
    reach = quantile * statistics.stdev(differences) / math.sqrt(len(differences))
    return Comparison(first, second, len(differences), mean, mean - reach, mean + reach)
