"""Which digits are taken for which.

Shapes: N images, L label positions, D + 1 places in a label of up to D digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.data.vocabulary import DIGITS, EOS

# Beside the ten digits: a read digit that no digit of the label stands for, and a digit of the label that was not read.
NOTHING_THERE = len(DIGITS)
MISSED = len(DIGITS)

Counts = npt.NDArray[np.int64]


def digit_confusion(rows: npt.ArrayLike, labels: npt.ArrayLike) -> Counts:
    """Count which digits were read for which.

    Readings are laid beside labels with the fewest digits replaced, left out or put in (Levenshtein, 1966), so that
    one digit left out does not make all that follow it wrong; a replaced digit is preferred to one left out and
    another put in.

    Args:
        rows: What was read, ``(N, L)``: digits up to `EOS`.
        labels: What is right, ``(N, L)``, alike.

    Returns:
        Counts ``(11, 11)``: first the true digit, or `NOTHING_THERE`; second the read one, or `MISSED`. They need no
        correction: row sums are how often each digit occurs, and the diagonal how often it was read right.
    """
    read, read_lengths = _digits(np.asarray(rows))
    true, true_lengths = _digits(np.asarray(labels))
    counts = np.zeros((MISSED + 1, MISSED + 1), np.int64)
    distances = _distances(true, read)
    image = np.arange(len(true))
    at_true, at_read = true_lengths.copy(), read_lengths.copy()
    # From the ends of label and reading back to their beginnings, all images at once.
    while (going := (at_true > 0) | (at_read > 0)).any():
        image, at_true, at_read = image[going], at_true[going], at_read[going]
        true_digit, read_digit = true[image, at_true - 1], read[image, at_read - 1]
        least = distances[at_true, at_read, image]
        together = (at_true > 0) & (at_read > 0)
        together &= distances[at_true - 1, at_read - 1, image] + (true_digit != read_digit) == least
        left_out = ~together & (at_true > 0) & (distances[at_true - 1, at_read, image] + 1 == least)
        put_in = ~together & ~left_out
        np.add.at(counts, (np.where(put_in, NOTHING_THERE, true_digit), np.where(left_out, MISSED, read_digit)), 1)
        at_true, at_read = at_true - ~put_in, at_read - ~left_out
    return counts


@dataclass(frozen=True)
class DigitScore:
    """How well one digit is read.

    Attributes:
        digit: The Khmer digit.
        count: How often it is in the labels.
        recall: Share of these that were read right, 0 to 1; None if there are none.
        precision: Share of its readings that are right, 0 to 1; None if it was never read.
        read_as: What was read instead of it, with counts: other digits, and ``missed`` where nothing was.
        put_in: How often it was read where no digit of the label is.
    """

    digit: str
    count: int
    recall: float | None
    precision: float | None
    read_as: dict[str, int]
    put_in: int


def digit_scores(counts: Counts) -> list[DigitScore]:
    """Return the scores of the ten digits from the counts ``(11, 11)`` of `digit_confusion`."""
    return [_digit_score(counts, value) for value in range(len(DIGITS))]


def _digit_score(counts: Counts, value: int) -> DigitScore:
    right, count, read = int(counts[value, value]), int(counts[value].sum()), int(counts[:, value].sum())
    names = (*DIGITS, "missed")
    return DigitScore(
        digit=DIGITS[value],
        count=count,
        recall=right / count if count else None,
        precision=right / read if read else None,
        read_as={names[other]: int(n) for other, n in enumerate(counts[value]) if n and other != value},
        put_in=int(counts[NOTHING_THERE, value]),
    )


def _digits(rows: npt.NDArray[np.integer]) -> tuple[Counts, Counts]:
    """Return the digits of rows at their beginnings, ``(N, L)``, and how many each has, ``(N,)``."""
    is_digit = (rows < len(DIGITS)) & ~np.logical_or.accumulate(rows == EOS, axis=1)
    first = np.argsort(~is_digit, axis=1, kind="stable")
    return np.take_along_axis(rows, first, axis=1).astype(np.int64), is_digit.sum(1)


def _distances(true: Counts, read: Counts) -> npt.NDArray[np.int16]:
    """Return how many digits must change between all beginnings of labels and readings, ``(D + 1, D + 1, N)``."""
    count, length = true.shape
    distances = np.zeros((length + 1, read.shape[1] + 1, count), np.int16)
    distances[:, 0] = np.arange(length + 1)[:, None]
    distances[0] = np.arange(read.shape[1] + 1)[:, None]
    for at_true in range(1, length + 1):
        for at_read in range(1, read.shape[1] + 1):
            replaced = distances[at_true - 1, at_read - 1] + (true[:, at_true - 1] != read[:, at_read - 1])
            shifted = np.minimum(distances[at_true - 1, at_read], distances[at_true, at_read - 1]) + 1
            distances[at_true, at_read] = np.minimum(replaced, shifted)
    return distances
