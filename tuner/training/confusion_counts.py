"""Confusion counts: how often each character is read as each character.

Shapes: N images, L label positions, K characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.data.vocabulary import SpecialIndices

# The last row is for inserted characters (read, but not in the label), the last column for deleted ones (not read).
INSERTED = -1
DELETED = -1

Counts = npt.NDArray[np.int64]


def count_confusions(rows: npt.ArrayLike, labels: npt.ArrayLike, vocab_size: int) -> Counts:
    """Count how often each character of the labels was read as each character.

    Each reading is aligned with its label by the fewest substitutions, deletions and insertions (Levenshtein 1966), so
    that one missing character does not make all later ones wrong. A substitution is preferred to a deletion plus an
    insertion.

    Args:
        rows: The predicted label sequences, ``(N, L)``: characters up to ``<EOS>``.
        labels: The ground-truth label sequences, ``(N, L)``.
        vocab_size: Number of classes: K characters and the special symbols.

    Returns:
        Counts ``(K + 1, K + 1)``: axis 0 is the true character or `INSERTED`, axis 1 the read character or `DELETED`.
        The sum of a row is the number of occurrences of its character; the diagonal counts the correct readings.
    """
    eos = SpecialIndices.of(vocab_size).eos
    read, read_lengths = _characters(np.asarray(rows), eos)
    true, true_lengths = _characters(np.asarray(labels), eos)
    counts = np.zeros((eos + 1, eos + 1), np.int64)
    distances = _distances(true, read)
    image = np.arange(len(true))
    at_true, at_read = true_lengths.copy(), read_lengths.copy()
    # Trace back the alignments of all images at the same time, from their ends.
    while (unfinished := (at_true > 0) | (at_read > 0)).any():
        image, at_true, at_read = image[unfinished], at_true[unfinished], at_read[unfinished]
        true_character, read_character = true[image, at_true - 1], read[image, at_read - 1]
        least = distances[at_true, at_read, image]
        is_aligned = (at_true > 0) & (at_read > 0)
        is_aligned &= distances[at_true - 1, at_read - 1, image] + (true_character != read_character) == least
        is_deleted = ~is_aligned & (at_true > 0) & (distances[at_true - 1, at_read, image] + 1 == least)
        is_inserted = ~is_aligned & ~is_deleted
        cells = np.where(is_inserted, INSERTED, true_character), np.where(is_deleted, DELETED, read_character)
        np.add.at(counts, cells, 1)
        at_true, at_read = at_true - ~is_inserted, at_read - ~is_deleted
    return counts


@dataclass(frozen=True)
class CharacterScore:
    """The recall, precision and confusions of one character.

    Attributes:
        character: The character.
        count: Number of occurrences in the labels.
        recall: Fraction of the occurrences that were read correctly, 0 to 1; None if it does not occur.
        precision: Fraction of the readings of this character that are correct, 0 to 1; None if it was never read.
        read_as: Number of times that another character was read instead, keyed by it; ``missed`` if none was read.
        insertions: Number of times that this character was read although the label has none there.
    """

    character: str
    count: int
    recall: float | None
    precision: float | None
    read_as: dict[str, int]
    insertions: int


def character_scores(counts: Counts, characters: Sequence[str]) -> list[CharacterScore]:
    """Compute the scores of K characters from the counts ``(K + 1, K + 1)`` of `count_confusions`."""
    return [_character_score(counts, value, characters) for value in range(len(characters))]


def _character_score(counts: Counts, value: int, characters: Sequence[str]) -> CharacterScore:
    correct, count, read = int(counts[value, value]), int(counts[value].sum()), int(counts[:, value].sum())
    names = (*characters, "missed")
    return CharacterScore(
        character=characters[value],
        count=count,
        recall=correct / count if count else None,
        precision=correct / read if read else None,
        read_as={names[other]: int(n) for other, n in enumerate(counts[value]) if n and other != value},
        insertions=int(counts[INSERTED, value]),
    )


def _characters(rows: npt.NDArray[np.integer], eos: int) -> tuple[Counts, Counts]:
    """Move the characters of each row to its start; return the rows, ``(N, L)``, and their lengths, ``(N,)``."""
    is_character = (rows < eos) & ~np.logical_or.accumulate(rows == eos, axis=1)
    first = np.argsort(~is_character, axis=1, kind="stable")
    return np.take_along_axis(rows, first, axis=1).astype(np.int64), is_character.sum(1)


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
