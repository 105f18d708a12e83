import numpy as np
import pytest

from tuner.data.vocabulary import KHMER_DIGITS, Vocabulary
from tuner.training.confusion_counts import character_scores, count_confusions

VOCABULARY = Vocabulary()
EOS, PAD, BLANK = VOCABULARY.special
# The last row and the last column of the counts.
INSERTED = DELETED = 10


def _row(arabic):
    """Encode digits as a label sequence; an empty text is a reading without digits."""
    digits = [int(digit) for digit in arabic]
    return [*digits, EOS, *[PAD] * VOCABULARY.positions][: VOCABULARY.positions]


def _confusion(*pairs):
    counts = count_confusions([_row(read) for _, read in pairs], [_row(true) for true, _ in pairs], 13)
    return {(int(true), int(read)): int(counts[true, read]) for true, read in np.argwhere(counts)}


@pytest.mark.parametrize(
    ("true", "read", "expected"),
    [
        ("7", "7", {(7, 7): 1}),
        ("00", "00", {(0, 0): 2}),
        ("123", "153", {(1, 1): 1, (2, 5): 1, (3, 3): 1}),
        # After a deleted or inserted digit, the other digits are still correct.
        ("12345", "1345", {(1, 1): 1, (2, DELETED): 1, (3, 3): 1, (4, 4): 1, (5, 5): 1}),
        ("12345", "2345", {(1, DELETED): 1, (2, 2): 1, (3, 3): 1, (4, 4): 1, (5, 5): 1}),
        ("12345", "1234", {(1, 1): 1, (2, 2): 1, (3, 3): 1, (4, 4): 1, (5, DELETED): 1}),
        ("123", "1923", {(1, 1): 1, (INSERTED, 9): 1, (2, 2): 1, (3, 3): 1}),
        ("11", "1", {(1, 1): 1, (1, DELETED): 1}),
        # Substitutions are preferred to a deletion plus an insertion.
        ("12", "21", {(1, 2): 1, (2, 1): 1}),
        ("48", "", {(4, DELETED): 1, (8, DELETED): 1}),
        ("12345678", "12345678", {(digit, digit): 1 for digit in range(1, 9)}),
    ],
)
def test_read_characters_are_aligned_with_label_characters(true, read, expected):
    assert _confusion((true, read)) == expected


def test_counts_of_several_images_are_added():
    assert _confusion(("1", "1"), ("12", "1"), ("3", "8"), ("3", "8")) == {(1, 1): 2, (2, DELETED): 1, (3, 8): 2}


def test_no_images_give_zero_counts():
    nothing = np.zeros((0, VOCABULARY.positions), np.int16)
    assert count_confusions(nothing, nothing, VOCABULARY.size).tolist() == np.zeros((11, 11)).tolist()


def test_special_classes_before_the_end_mark_are_ignored():
    row = [PAD, 4, BLANK, 2, EOS, 9, PAD, PAD, PAD]
    assert count_confusions([row], [_row("42")], 13).diagonal()[:10].sum() == 2
    without_end = [5] * VOCABULARY.positions
    assert count_confusions([without_end], [_row("5")], 13)[INSERTED, 5] == VOCABULARY.positions - 1


def _levenshtein(one, other):
    before = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        now = [i]
        for j, right in enumerate(other, 1):
            now.append(min(before[j] + 1, now[j - 1] + 1, before[j - 1] + (left != right)))
        before = now
    return before[-1]


def test_each_character_is_counted_once_and_errors_equal_the_edit_distance():
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("0123"), size=random.integers(0, 9))) for _ in range(2 * 200)]
    true, read = texts[:200], texts[200:]
    counts = count_confusions([_row(text) for text in read], [_row(text) for text in true], 13)
    assert counts[:10].sum(1).tolist() == ["".join(true).count(str(digit)) for digit in range(10)]
    assert counts[:, :10].sum(0).tolist() == ["".join(read).count(str(digit)) for digit in range(10)]
    assert counts.sum() - counts.trace() == sum(map(_levenshtein, true, read))


def test_encoded_labels_of_the_dataset_are_counted():
    labels = np.stack([VOCABULARY.encode(KHMER_DIGITS[:8]), VOCABULARY.encode(KHMER_DIGITS[8:])])
    assert count_confusions(labels, labels, 13).tolist() == np.diag([1] * 10 + [0]).tolist()


def test_character_scores_are_fractions_of_the_counts():
    pairs = [("11", "11"), ("1", "7"), ("41", "4"), ("2", "21"), ("3", "1")]
    counts = count_confusions([_row(read) for _, read in pairs], [_row(true) for true, _ in pairs], 13)
    scores = {KHMER_DIGITS.index(score.character): score for score in character_scores(counts, KHMER_DIGITS)}
    one = scores[1]
    assert (one.count, one.recall, one.precision) == (4, 2 / 4, 2 / 4)
    assert (one.read_as, one.insertions) == ({KHMER_DIGITS[7]: 1, "missed": 1}, 1)
    assert (scores[4].recall, scores[4].precision, scores[4].read_as) == (1.0, 1.0, {})
    assert (scores[7].count, scores[7].recall, scores[7].precision) == (0, None, 0.0)
    assert (scores[3].recall, scores[3].precision) == (0.0, None)
