import pytest
import torch

from tuner.data.vocabulary import Vocabulary
from tuner.training.validation import Accuracy

VOCABULARY = Vocabulary()
EOS, PAD, BLANK = VOCABULARY.special

LABEL = [1, 2, EOS, PAD]


@pytest.mark.parametrize(
    ("row", "characters", "sequence"),
    [
        ([1, 2, EOS, PAD], 3 / 3, 1.0),
        ([1, 2, EOS, 5], 3 / 3, 1.0),
        ([1, 3, EOS, PAD], 2 / 3, 0.0),
        ([1, EOS, PAD, PAD], 1 / 3, 0.0),
        ([1, 2, 2, EOS], 2 / 3, 0.0),
        ([1, 2, 2, 2], 2 / 3, 0.0),
        ([2, 1, PAD, PAD], 0 / 3, 0.0),
    ],
    ids=["correct", "digit after the end mark", "wrong digit", "too short", "too long", "no end mark", "all wrong"],
)
def test_characters_are_counted_up_to_and_including_the_end_mark(row, characters, sequence):
    accuracy = Accuracy(PAD)
    accuracy.update(torch.tensor([row]), torch.tensor([LABEL]))
    assert accuracy.character_accuracy() == pytest.approx(characters)
    assert accuracy.sequence_accuracy() == sequence


def test_nine_digit_reading_is_never_correct():
    longest = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, EOS]])
    accuracy = Accuracy(PAD)
    accuracy.update(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9]]), longest)
    assert accuracy.character_accuracy() == pytest.approx(8 / 9)
    assert accuracy.sequence_accuracy() == 0


def test_accuracy_over_batches_is_computed_from_counts_not_from_means():
    accuracy = Accuracy(PAD)
    accuracy.update(torch.tensor([[1, 2, 3, EOS]]), torch.tensor([[1, 2, 3, EOS]]))
    accuracy.update(torch.tensor([[5, 5, 5, 5], [9, EOS, PAD, PAD]]), torch.tensor([[0, EOS, PAD, PAD], LABEL]))
    assert accuracy.character_accuracy() == pytest.approx((4 + 0 + 0) / (4 + 2 + 3))
    assert accuracy.sequence_accuracy() == pytest.approx(1 / 3)


def test_accuracy_without_counts_is_zero():
    assert Accuracy(PAD).character_accuracy() == 0
    assert Accuracy(PAD).sequence_accuracy() == 0
