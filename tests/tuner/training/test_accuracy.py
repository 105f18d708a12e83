import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.vocabulary import KHMER_DIGITS, Vocabulary
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


LABELS = st.text(KHMER_DIGITS[:3], min_size=1, max_size=8).map(lambda text: VOCABULARY.encode(text).tolist())


@st.composite
def pairs(draw):
    """Generate a reading and its label, which are often similar."""
    label = draw(LABELS)
    row = list(draw(st.sampled_from([label, draw(LABELS)])))
    for position in draw(st.lists(st.integers(0, 8), max_size=2)):
        row[position] = draw(st.sampled_from([0, 1, EOS, PAD, BLANK]))
    return row, label


def reference(read):
    characters = right = sequences = 0
    for row, label in read:
        counted = label[: label.index(EOS) + 1]
        hits = [ours == theirs for ours, theirs in zip(row, counted, strict=False)]
        characters += len(counted)
        right += sum(hits)
        sequences += all(hits)
    return right / max(1, characters), sequences / max(1, len(read))


@given(read=st.lists(pairs(), max_size=12), batch=st.integers(1, 5))
def test_accuracy_equals_the_reference_for_any_batch_size(read, batch):
    accuracy = Accuracy(PAD)
    for start in range(0, len(read), batch):
        rows, labels = zip(*read[start : start + batch], strict=True)
        accuracy.update(torch.tensor(rows), torch.tensor(labels))
    characters, sequences = reference(read)
    assert accuracy.character_accuracy() == pytest.approx(characters)
    assert accuracy.sequence_accuracy() == pytest.approx(sequences)
    assert 0 <= sequences <= 1
    # All characters are correct if and only if all sequences are correct.
    assert (accuracy.character_accuracy() == 1) == (accuracy.sequence_accuracy() == 1)
