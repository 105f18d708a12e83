import numpy as np
import pytest
from scipy import stats

from tuner.analysis.paired_t_test import compare


def test_interval_equals_students_interval_of_the_differences():
    random = np.random.default_rng(0)
    for count in (2, 3, 10):
        pairs = [(float(one), float(two)) for one, two in random.normal(0.9, 0.02, (count, 2))]
        comparison = compare("a", "b", pairs)
        differences = np.array([one - two for one, two in pairs])
        expected = stats.t.interval(0.95, count - 1, differences.mean(), stats.sem(differences))
        assert (comparison.low, comparison.high) == pytest.approx(expected)
        assert comparison.difference == pytest.approx(differences.mean())
        assert comparison.seeds == count


def test_interval_contains_the_true_difference_in_95_percent_of_the_cases():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        common = random.normal(0.9, 0.05, 4)  # the common effect of the seed cancels out
        pairs = list(zip(common + 0.01 + random.normal(0, 0.01, 4), common, strict=True))
        comparison = compare("a", "b", pairs)
        assert comparison.low is not None
        assert comparison.high is not None
        inside += comparison.low <= 0.01 <= comparison.high
    assert 0.92 < inside / 400 < 0.98


CASES = {
    "better": (
        [(0.9, 0.8), (0.92, 0.85), (0.95, 0.83)],
        "a",
        "a is better than b by 0.0967 acc (95 % confidence interval 0.0342 ",
    ),
    "worse": (
        [(0.8, 0.9), (0.85, 0.92), (0.83, 0.95)],
        "b",
        "b is better than a by 0.0967 acc (95 % confidence interval 0.0342 ",
    ),
    "neither": (
        [(0.9, 0.8), (0.8, 0.9), (0.9, 0.85)],
        None,
        "no significant difference between a and b: +0.0167 acc (95 % confidence interval -",
    ),
    "equal": ([(0.9, 0.9), (0.8, 0.8)], None, "a minus b: +0.0000 acc, the same on all 2 seeds, so there is no"),
    # Accuracies are ratios of counts, so equal differences on two seeds are common; rounding makes them nearly equal.
    "equal differences": ([(0.9, 0.8), (0.7, 0.6)], None, "a minus b: +0.1000 acc, the same on all 2 seeds, so there"),
    "nearly equal differences": (
        [(0.901, 0.8), (0.7, 0.6)],
        "a",
        "a is better than b by 0.1005 acc (95 % confidence interval 0.0941 to",
    ),
    "one seed": ([(0.9, 0.8)], None, "a minus b: +0.1000 acc, on one seed, so there is no confidence interval"),
    "no seed": ([], None, "a and b cannot be compared, because they have no completed seed in common"),
}


@pytest.mark.parametrize(("pairs", "better", "sentence"), CASES.values(), ids=CASES)
def test_sentence_describes_the_comparison(pairs, better, sentence):
    comparison = compare("a", "b", pairs)
    assert comparison.better == better
    assert comparison.sentence("acc").startswith(sentence)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_sentence_suggests_more_seeds_if_there_is_no_interval(seeds):
    assert compare("a", "b", [(0.9, 0.8)] * seeds).sentence("acc").endswith("; use more --seeds")
