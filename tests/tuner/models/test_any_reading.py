"""Readings of random scores, compared with references that process one class at a time."""

from itertools import groupby

import torch
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.vocabulary import Vocabulary
from tuner.models.decoders import CTCDecoder, MonotonicAttention

VOCABULARY = Vocabulary()
EOS, PAD, BLANK = VOCABULARY.special


@st.composite
def batches(draw, least=1):
    """Generate the most likely class at each step of a few images."""
    steps = draw(st.integers(least, 16))
    # Few different classes, so that repeats, blanks and end marks are frequent.
    classes = st.sampled_from([0, 1, 9, EOS, PAD, BLANK, BLANK])
    return draw(st.lists(st.lists(classes, min_size=steps, max_size=steps), min_size=1, max_size=4))


def scores_of(batch):
    noise = torch.rand(len(batch), len(batch[0]), VOCABULARY.size, generator=torch.Generator().manual_seed(0))
    return noise + 2 * torch.nn.functional.one_hot(torch.tensor(batch), VOCABULARY.size)


def ctc(length):
    return CTCDecoder(1, length, VOCABULARY.size)


ATTENTION = MonotonicAttention(1, 16, VOCABULARY.size)


def padded(digits, length):
    return [*digits, EOS, *[PAD] * length][:length]


@given(batch=batches(), length=st.integers(2, 10))
def test_ctc_reading_equals_its_definition(batch, length):
    expected = [padded([value for value, _ in groupby(row) if value < EOS], length) for row in batch]
    assert ctc(length).read(scores_of(batch)).tolist() == expected


@given(batch=batches())
def test_attention_reading_equals_its_definition(batch):
    expected = [padded(row[: row.index(EOS)], len(row)) if EOS in row else row for row in batch]
    assert ATTENTION.read(scores_of(batch)).tolist() == expected


@given(batch=batches(least=4), length=st.integers(2, 10))
def test_readings_do_not_depend_on_the_batch(batch, length):
    scores = scores_of(batch)
    read = ctc(length).read
    assert torch.equal(read(scores), torch.cat([read(one) for one in scores.split(1)]))
    rows = ATTENTION.read(scores)
    assert torch.equal(rows, torch.cat([ATTENTION.read(one) for one in scores.split(1)]))
    assert torch.equal(rows, ATTENTION.read(torch.nn.functional.one_hot(rows, VOCABULARY.size)))


@given(batch=batches(least=9))
def test_confidence_is_a_probability(batch):
    scores = scores_of(batch)
    for decoder in (ctc(9), ATTENTION):
        confidence = decoder.confidence(scores, decoder.read(scores))
        assert bool(((confidence >= 0) & (confidence <= 1)).all())
