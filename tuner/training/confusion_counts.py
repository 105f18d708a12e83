"""Confusion counts: how often each digit is read as each digit.

Shapes: N images, L label positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.data.vocabulary import DIGITS, EOS

# Indices of the row of inserted digits (read, but not in the label) and the column of deleted digits (not read).
INSERTED = len(DIGITS)
DELETED = len(DIGITS)

Counts = npt.NDArray[np.int64]


def digit_confusion(rows: npt.ArrayLike, labels: npt.ArrayLike) -> Counts:
    """Count how often each digit of the labels was read as each digit.

    Each reading is aligned with its label by the fewest substitutions, deletions and insertions (Levenshtein 1966), so
    that one missing digit does not make all later digits wrong. A substitution is preferred to a deletion plus an
    insertion.

    Args:
        rows: The predicted label sequences, ``(N, L)``: digits up to `EOS`.
        labels: The ground-truth label sequences, ``(N, L)``.

    Returns:
        Counts ``(11, 11)``: axis 0 is the true digit or `INSERTED`, axis 1 the read digit or `DELETED`. The sum of a
        row is the number of occurrences of its digit; the diagonal counts the correct readings.
    """
    read, read_lengths = _digits(np.asarray(rows))
    true, true_lengths = _digits(np.asarray(labels))
    counts = np.zeros((DELETED + 1, DELETED + 1), np.int64)
    distances = _distances(true, read)
    image = np.arange(len(true))
    at_true, at_read = true_lengths.copy(), read_lengths.copy()
    # Trace back the alignments of all images at the same time, from their ends.
    while (unfinished := (at_true > 0) | (at_read > 0)).any():
        image, at_true, at_read = image[unfinished], at_true[unfinished], at_read[unfinished]
        true_digit, read_digit = true[image, at_true - 1], read[image, at_read - 1]
        least = distances[at_true, at_read, image]
        is_aligned = (at_true > 0) & (at_read > 0)
        is_aligned &= distances[at_true - 1, at_read - 1, image] + (true_digit != read_digit) == least
        is_deleted = ~is_aligned & (at_true > 0) & (distances[at_true - 1, at_read, image] + 1 == least)
        is_inserted = ~is_aligned & ~is_deleted
        np.add.at(counts, (np.where(is_inserted, INSERTED, true_digit), np.where(is_deleted, DELETED, read_digit)), 1)
        at_true, at_read = at_true - ~is_inserted, at_read - ~is_deleted
    return counts


@dataclass(frozen=True)
class DigitScore:
    """The recall, precision and confusions of one digit.

    Attributes:
        digit: The Khmer digit.
        count: Number of occurrences in the labels.
        recall: Fraction of the occurrences that were read correctly, 0 to 1; None if the digit does not occur.
        precision: Fraction of the readings of this digit that are correct, 0 to 1; None if it was never read.
        read_as: Number of times that another digit was read instead, keyed by that digit; ``missed`` if none was read.
        insertions: Number of times that this digit was read although the label has no digit there.
    """

    digit: str
    count: int
    recall: float | None
    precision: float | None
    read_as: dict[str, int]
    insertions: int


def digit_scores(counts: Counts) -> list[DigitScore]:
    """Compute the scores of the ten digits from the counts ``(11, 11)`` of `digit_confusion`."""
    return [_digit_score(counts, value) for value in range(len(DIGITS))]


def _digit_score(counts: Counts, value: int) -> DigitScore:
    correct, count, read = int(counts[value, value]), int(counts[value].sum()), int(counts[:, value].sum())
    names = (*DIGITS, "missed")
    return DigitScore(
        digit=DIGITS[value],
        count=count,
        recall=correct / count if count else None,
        precision=correct / read if read else None,
        read_as={names[other]: int(n) for other, n in enumerate(counts[value]) if n and other != value},
        insertions=int(counts[INSERTED, value]),
    )


def _digits(rows: npt.NDArray[np.integer]) -> tuple[Counts, Counts]:
    """Move the digits of each row to its start; return the rows, ``(N, L)``, and the digits per row, ``(N,)``."""
    is_digit = (rows < len(DIGITS)) & ~np.logical_or.accumulate(rows == EOS, axis=1)
    first = np.argsort(~is_digit, axis=1, kind="stable")
    return np.take_along_axis(rows, first, axis=1).astype(np.int64), is_digit.sum(1)


def _distances(true: Counts, read: Counts) -> npt.NDArray[np.int16]:
    """Return the edit distances between all prefixes of labels and readings, by length: ``(L + 1, L + 1, N)``."""
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
