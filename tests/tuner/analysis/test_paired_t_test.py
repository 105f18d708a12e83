from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tuner.analysis.paired_t_test import compare


def test_the_interval_is_students_of_the_differences() -> None:
    random = np.random.default_rng(0)
    for count in (2, 3, 10):
        pairs = [(float(one), float(two)) for one, two in random.normal(0.9, 0.02, (count, 2))]
        found = compare("a", "b", pairs)
        differences = np.array([one - two for one, two in pairs])
        expected = stats.t.interval(0.95, count - 1, differences.mean(), stats.sem(differences))
        assert (found.low, found.high) == pytest.approx(expected)
        assert found.difference == pytest.approx(differences.mean())
        assert found.seeds == count


def test_a_true_difference_is_inside_the_interval_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        common = random.normal(0.9, 0.05, 4)  # what the seed does to both falls out
        pairs = list(zip(common + 0.01 + random.normal(0, 0.01, 4), common, strict=True))
        found = compare("a", "b", pairs)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.01 <= found.high
    assert 0.92 < inside / 400 < 0.98


CASES = {
    "better": (
        [(0.9, 0.8), (0.92, 0.85), (0.95, 0.83)],
        "a",
        "a is better than b by 0.0967 acc (95 % interval 0.0342 ",
    ),
    "worse": ([(0.8, 0.9), (0.85, 0.92), (0.83, 0.95)], "b", "b is better than a by 0.0967 acc (95 % interval 0.03"),
    "either": ([(0.9, 0.8), (0.8, 0.9), (0.9, 0.85)], None, "no difference shown between a and b: +0.0167 acc (95 % "),
    "always equal": ([(0.9, 0.9), (0.8, 0.8)], None, "a minus b: +0.0000 acc, the same on all 2 seeds, which says"),
    # Two accuracies that are counts often differ by the same on two seeds; in floating point they nearly do.
    "always the same": ([(0.9, 0.8), (0.7, 0.6)], None, "a minus b: +0.1000 acc, the same on all 2 seeds, which says"),
    "nearly the same": ([(0.901, 0.8), (0.7, 0.6)], "a", "a is better than b by 0.1005 acc (95 % interval 0.0941 to"),
    "one seed": ([(0.9, 0.8)], None, "a minus b: +0.1000 acc, on one seed, which says nothing of how much seeds"),
    "nothing": ([], None, "a and b cannot be compared: there is no seed on which both were trained"),
}


@pytest.mark.parametrize(("pairs", "better", "told"), CASES.values(), ids=CASES)
def test_it_is_said_in_words(pairs: list[tuple[float, float]], better: str | None, told: str) -> None:
    comparison = compare("a", "b", pairs)
    assert comparison.better == better
    assert comparison.sentence("acc").startswith(told)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_without_an_interval_more_seeds_are_asked_for(seeds: int) -> None:
    assert compare("a", "b", [(0.9, 0.8)] * seeds).sentence("acc").endswith("; give more --seeds")
