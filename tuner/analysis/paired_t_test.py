"""Paired t-test between two configurations that were trained on the same seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95

_NO_WIDTH = 1e-12


@dataclass(frozen=True)
class Comparison:
    """The comparison of two configurations that were trained on the same seeds.

    Attributes:
        first: Name of the configuration that is expected to be better.
        second: Name of the other configuration.
        seeds: Number of seeds on which both configurations were trained.
        difference: Mean difference of the metric, first minus second; None without a seed.
        low: Lower end of the confidence interval of the mean; None with fewer than two seeds.
        high: Upper end of the confidence interval of the mean; None with fewer than two seeds.
    """

    first: str
    second: str
    seeds: int
    difference: float | None
    low: float | None
    high: float | None

    @property
    def better(self) -> str | None:
        """The name of the significantly better configuration; None if the difference is not significant."""
        if self._interval is None or self._interval[0] <= 0 <= self._interval[1]:
            return None
        return self.first if self._interval[0] > 0 else self.second

    def sentence(self, what: str) -> str:
        """Format the result of the comparison as a sentence.

        Args:
            what: The compared metric, for example ``test char``.
        """
        if self.difference is None:
            return f"{self.first} and {self.second} cannot be compared, because they have no completed seed in common"
        if self._interval is None:
            text = f"{self.first} minus {self.second}: {self.difference:+.4f} {what}"
            seeds = "on one seed" if self.seeds == 1 else f"the same on all {self.seeds} seeds"
            return f"{text}, {seeds}, so there is no confidence interval; use more --seeds"
        low, high = self._interval
        if self.better == self.second:
            other, difference, low, high = self.first, -self.difference, -high, -low
        else:
            other, difference = self.second, self.difference
        interval = f"{LEVEL * 100:g} % confidence interval {low:.4f} to {high:.4f}, {self.seeds} seeds"
        if self.better is None:
            return f"no significant difference between {self.first} and {other}: {difference:+.4f} {what} ({interval})"
        return f"{self.better} is better than {other} by {difference:.4f} {what} ({interval})"

    @property
    def _interval(self) -> tuple[float, float] | None:
        """The confidence interval; None with fewer than two seeds, or if all seeds have the same difference.

        An accuracy is a ratio of two counts, so a few seeds can have the same difference by chance.
        """
        if self.low is None or self.high is None or self.high - self.low <= _NO_WIDTH:
            return None
        return self.low, self.high


def compare(first: str, second: str, pairs: Sequence[tuple[float, float]]) -> Comparison:
    """Compare two configurations by a paired t-test.

    Both values of a pair are from the same seed, so the common effect of the seed cancels out in their difference. The
    n differences have a standard deviation s, and their mean has the confidence interval mean -+ t s / sqrt(n) with the
    quantile t of Student's distribution with n - 1 degrees of freedom.

    Args:
        first: Name of the configuration that is expected to be better.
        second: Name of the other configuration.
        pairs: For each seed, the metric of both configurations; higher is better.
    """
    differences = [one - other for one, other in pairs]
    if not differences:
        return Comparison(first, second, 0, None, None, None)
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Comparison(first, second, 1, mean, None, None)
    from scipy.special import stdtrit  # the import takes a second

    quantile = float(stdtrit(len(differences) - 1, (1 + LEVEL) / 2))
    margin = quantile * statistics.stdev(differences) / math.sqrt(len(differences))
    return Comparison(first, second, len(differences), mean, mean - margin, mean + margin)
