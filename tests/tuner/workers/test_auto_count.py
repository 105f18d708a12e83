"""How many workers `--workers auto` chooses, from what was measured."""

from __future__ import annotations

import pytest

from tuner.workers.auto_count import counts_to_measure, smallest_near_fastest, may_be_faster


@pytest.mark.parametrize(
    ("threads", "pending", "on_gpu", "counts"),
    [
        (1, 9, False, [1]),
        (2, 9, False, [1, 2]),
        (8, 100, False, [1, 2, 4, 8]),
        (6, 100, False, [1, 2, 4, 6]),  # a thread for each is often the fastest
        (96, 100, False, [1, 2, 4, 8, 16, 32, 64, 96]),
        (8, 3, False, [1, 2, 3]),  # a fourth would have nothing to do
        (8, 2, False, [1, 2]),
        (1, 9, True, [1, 2, 4, 8]),  # what they share is the GPU
        (64, 100, True, [1, 2, 4, 8]),
        (64, 5, True, [1, 2, 4, 5]),
    ],
)
def test_the_numbers_that_come_into_question(threads: int, pending: int, on_gpu: bool, counts: list[int]) -> None:
    assert counts_to_measure(threads, pending, on_gpu=on_gpu) == counts


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({}, 1),
        ({1: 800.0}, 1),
        ({1: 820.0, 2: 968.0}, 2),
        ({1: 820.0, 2: 801.0}, 1),
        ({1: 1000.0, 2: 1029.0}, 1),  # not worth the memory, nor the bits that do not repeat
        ({1: 1000.0, 2: 1500.0, 4: 1530.0}, 2),
        ({1: 1000.0, 2: 1500.0, 4: 1600.0, 6: 1610.0}, 4),
        ({1: 1000.0, 2: 990.0, 4: 1200.0}, 4),
    ],
)
def test_the_fewest_of_the_fastest_are_chosen(rates: dict[int, float], chosen: int) -> None:
    assert smallest_near_fastest(rates) == chosen


@pytest.mark.parametrize(
    ("rates", "goes_on"),
    [
        ({1: 800.0}, True),
        ({1: 800.0, 2: 1100.0}, True),
        ({1: 800.0, 2: 790.0}, True),  # not clearly worse
        ({1: 800.0, 2: 700.0}, False),
        ({1: 800.0, 2: 790.0, 4: 780.0}, False),  # twice in a row no better
        ({1: 800.0, 2: 790.0, 4: 810.0}, True),
        ({1: 800.0, 2: 1100.0, 4: 1090.0}, True),
        ({1: 800.0, 2: 1100.0, 4: 1090.0, 8: 1095.0}, False),
    ],
)
def test_more_are_measured_as_long_as_they_may_be_faster(rates: dict[int, float], goes_on: bool) -> None:
    assert may_be_faster(rates) is goes_on
