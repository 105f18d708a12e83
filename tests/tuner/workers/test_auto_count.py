"""The number of workers that `--workers auto` chooses from measured throughputs."""

import pytest

from tuner.workers.auto_count import counts_to_measure, may_be_faster, smallest_near_fastest


@pytest.mark.parametrize(
    ("threads", "pending", "on_gpu", "counts"),
    [
        (1, 9, False, [1]),
        (2, 9, False, [1, 2]),
        (8, 100, False, [1, 2, 4, 8]),
        (6, 100, False, [1, 2, 4, 6]),  # one thread per worker is often fastest
        (96, 100, False, [1, 2, 4, 8, 16, 32, 64, 96]),
        (8, 3, False, [1, 2, 3]),  # a fourth worker would have no trial
        (8, 2, False, [1, 2]),
        (1, 9, True, [1, 2, 4, 8]),  # the GPU is shared, so threads do not limit
        (64, 100, True, [1, 2, 4, 8]),
        (64, 5, True, [1, 2, 4, 5]),
    ],
)
def test_powers_of_two_and_the_largest_useful_count_are_measured(threads, pending, on_gpu, counts):
    assert counts_to_measure(threads, pending, on_gpu=on_gpu) == counts


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({}, 1),
        ({1: 800.0}, 1),
        ({1: 820.0, 2: 968.0}, 2),
        ({1: 820.0, 2: 801.0}, 1),
        ({1: 1000.0, 2: 1029.0}, 1),  # too small a gain for more memory
        ({1: 1000.0, 2: 1500.0, 4: 1530.0}, 2),
        ({1: 1000.0, 2: 1500.0, 4: 1600.0, 6: 1610.0}, 4),
        ({1: 1000.0, 2: 990.0, 4: 1200.0}, 4),
    ],
)
def test_smallest_count_near_the_fastest_is_chosen(rates, chosen):
    assert smallest_near_fastest(rates) == chosen


@pytest.mark.parametrize(
    ("rates", "continues"),
    [
        ({1: 800.0}, True),
        ({1: 800.0, 2: 1100.0}, True),
        ({1: 800.0, 2: 790.0}, True),  # not clearly worse
        ({1: 800.0, 2: 700.0}, False),
        ({1: 800.0, 2: 790.0, 4: 780.0}, False),  # not faster twice in a row
        ({1: 800.0, 2: 790.0, 4: 810.0}, True),
        ({1: 800.0, 2: 1100.0, 4: 1090.0}, True),
        ({1: 800.0, 2: 1100.0, 4: 1090.0, 8: 1095.0}, False),
    ],
)
def test_larger_counts_are_measured_while_they_may_be_faster(rates, continues):
    assert may_be_faster(rates) is continues
