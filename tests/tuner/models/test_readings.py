import pytest
import torch

from tuner.data.vocabulary import Vocabulary
from tuner.models.decoders import CTCDecoder, MonotonicAttention

VOCABULARY = Vocabulary()
EOS, PAD, BLANK = VOCABULARY.special

B = BLANK
CLASSES = 13


def logits_of(classes):
    return torch.nn.functional.one_hot(torch.tensor([classes]), CLASSES).float()


@pytest.mark.parametrize(
    ("classes", "row"),
    [
        ([3, 4, EOS, PAD], [3, 4, EOS, PAD]),
        ([3, EOS, 4, 5], [3, EOS, PAD, PAD]),
        ([EOS, EOS, 1, EOS], [EOS, PAD, PAD, PAD]),
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([1, PAD, 2, EOS], [1, PAD, 2, EOS]),
    ],
    ids=["label", "digits after the end mark", "two end marks", "no end mark", "padding before the end mark is kept"],
)
def test_attention_pads_after_the_first_end(classes, row):
    assert MonotonicAttention(1, 4, CLASSES).read(logits_of(classes)).tolist() == [row]


@pytest.mark.parametrize(
    ("classes", "row"),
    [
        ([1, 1, B, 2, 2, 2], [1, 2, EOS, PAD]),
        ([1, B, 1, B, B, 1], [1, 1, 1, EOS]),
        ([B, B, B, B, B, B], [EOS, PAD, PAD, PAD]),
        ([1, 2, 3, B, B, B], [1, 2, 3, EOS]),
        ([1, 2, 3, 4, B, B], [1, 2, 3, 4]),
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4]),
        ([1, EOS, 1, PAD, 2, B], [1, 1, 2, EOS]),
    ],
    ids=[
        "repeats",
        "blanks separate repeats",
        "nothing",
        "longest",
        "too long",
        "much too long",
        "end mark and padding are dropped",
    ],
)
def test_ctc_collapses_repeats_then_drops_blanks(classes, row):
    assert CTCDecoder(1, 4, CLASSES).read(logits_of(classes)).tolist() == [row]


def test_images_of_a_batch_are_read_independently():
    first, second = [1, 1, B, 2], [5, B, B, B]
    batch = torch.cat([logits_of(first), logits_of(second)])
    assert CTCDecoder(1, 9, CLASSES).read(batch).tolist() == [
        [1, 2, EOS, *[PAD] * 6],
        [5, EOS, *[PAD] * 7],
    ]
