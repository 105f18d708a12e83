import itertools

import pytest
import torch
from torch import nn

from search_spaces import ModelDefinition, TrainingConfig
from search_spaces.model_definitions import LOSSES_OF_DECODER
from tuner.data.vocabulary import Vocabulary
from tuner.models.decoders import DECODERS, CTCDecoder, Decoder, MonotonicAttention
from tuner.models.network import build_model

VOCABULARY = Vocabulary()
EOS, PAD, BLANK = VOCABULARY.special

FLOOR = 1e-6  # impossible classes have a probability between 0 and this
CLASSES = 13


def decoder_of(width, positions):
    torch.manual_seed(0)
    decoder = MonotonicAttention(width, positions, CLASSES)
    # Moderate weights, so that no column is almost certain.
    nn.init.normal_(decoder.reads.weight, std=1.0)
    nn.init.normal_(decoder.character.weight, std=1.0)
    return decoder


def enumerated(decoder, columns):
    """Return the same probabilities, computed from all 2**T ways to read or skip each column."""
    reads = torch.sigmoid(decoder.reads(columns)).squeeze(-1).double()
    digits = decoder.character(columns).softmax(-1).double()
    probabilities = torch.zeros(len(columns), decoder.positions, CLASSES, dtype=torch.double)
    for image, pattern in itertools.product(range(len(columns)), itertools.product([0, 1], repeat=columns.shape[1])):
        column_probabilities = [reads[image, t] if read else 1 - reads[image, t] for t, read in enumerate(pattern)]
        pattern_probability = torch.stack(column_probabilities).prod()
        read_columns = [t for t, read in enumerate(pattern) if read]
        for position in range(decoder.positions):
            if position < len(read_columns):
                probabilities[image, position, :EOS] += pattern_probability * digits[image, read_columns[position]]
            else:
                probabilities[image, position, EOS if position == len(read_columns) else PAD] += pattern_probability
    return probabilities


@pytest.mark.parametrize("positions", [3, 9])
def test_attention_equals_the_sum_over_all_reading_patterns(positions):
    decoder = decoder_of(4, positions)
    columns = torch.randn(2, 5, 4)
    assert torch.allclose(decoder(columns).exp().double(), enumerated(decoder, columns), atol=2 * FLOOR)


def test_attention_probabilities_sum_to_one_up_to_the_floor():
    decoder = decoder_of(4, 9)
    sums = decoder(torch.randn(3, 32, 4)).exp().sum(-1)
    assert torch.allclose(sums, torch.ones_like(sums), atol=2 * CLASSES * FLOOR)


def test_attention_never_predicts_a_blank():
    blanks = decoder_of(4, 9)(torch.randn(2, 32, 4))[..., BLANK]
    assert blanks.isfinite().all()
    assert blanks.exp().max() < FLOOR


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_certain_but_wrong_reading_has_a_correcting_gradient(logit):
    decoder = decoder_of(4, 9)
    with torch.no_grad():
        decoder.reads.weight.zero_()
        decoder.reads.bias.fill_(logit)
    wrong = EOS if logit > 0 else 3
    (-decoder(torch.randn(1, 32, 4))[0, 0, wrong]).backward()
    assert decoder.reads.bias.grad is not None
    assert decoder.reads.bias.grad.isfinite()
    assert decoder.reads.bias.grad.item() * logit > 0


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_gradient_equals_that_of_the_sum_over_all_reading_patterns(spread):
    decoder = decoder_of(4, 4)
    columns = spread * torch.randn(2, 6, 4)
    weights = torch.randn(2, 4, PAD + 1)  # impossible classes have a constant floor instead
    found, expected = (
        torch.autograd.grad((weights * probabilities[..., : PAD + 1]).sum(), list(decoder.parameters()))
        for probabilities in (decoder(columns).exp(), enumerated(decoder, columns))
    )
    for actual, reference in zip(found, expected, strict=True):
        assert torch.allclose(actual, reference, atol=1e-4)


def test_attention_reads_each_certain_column_once_and_in_order():
    decoder = MonotonicAttention(width=11, positions=4, classes=CLASSES)
    with torch.no_grad():
        # Feature 0 means that the column has a digit, features 1 to 10 encode it.
        decoder.reads.weight.zero_()
        decoder.reads.weight[0, 0] = 100
        decoder.reads.bias.fill_(-50)
        decoder.character.weight.copy_(torch.cat([torch.zeros(10, 1), 50 * torch.eye(10)], dim=1))
        decoder.character.bias.zero_()
    columns = torch.zeros(2, 6, 11)
    for column, digit in ((1, 7), (2, 7), (5, 3)):
        columns[0, column, [0, 1 + digit]] = 1
    assert decoder.read(decoder(columns)).tolist() == [[7, 7, 3, EOS], [EOS, PAD, PAD, PAD]]


def test_untrained_attention_expects_the_given_number_of_digits():
    decoder = MonotonicAttention(width=4, positions=9, classes=CLASSES)
    nn.init.zeros_(decoder.reads.weight)
    reads = torch.sigmoid(decoder.reads(torch.randn(1, 32, 4)))
    assert reads.sum().item() == pytest.approx(4.5, rel=1e-4)


def test_attention_passes_gradients_to_all_parameters():
    decoder = decoder_of(4, 9)
    decoder(torch.randn(2, 32, 4))[:, 0, 5].sum().backward()
    for parameter in decoder.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


def test_ctc_scores_each_column_separately():
    decoder = CTCDecoder(width=4, positions=9, classes=CLASSES)
    columns = torch.randn(2, 32, 4)
    logits = decoder(columns)
    assert logits.shape == (2, 32, CLASSES)
    assert torch.allclose(logits[:, 5], decoder(columns[:, 5:6])[:, 0])


class ColumnDecoder(Decoder):
    """Reads one digit in each of the first columns."""

    def forward(self, columns):
        return columns[:, : self.positions, : len(self.special) + 10]

    def read(self, scores):
        return scores[..., :EOS].argmax(-1)

    def confidence(self, scores, rows):
        return torch.ones(len(rows))


def test_registry_has_exactly_the_decoders_of_model_definitions():
    assert list(DECODERS) == list(LOSSES_OF_DECODER)


def test_new_decoder_needs_only_a_class_and_a_registry_entry(monkeypatch):
    monkeypatch.setitem(DECODERS, "column", ColumnDecoder)
    # Without validation, which allows only the decoder names known at import.
    definition = ModelDefinition(
        decoder="ctc", stem_channels=(4, 8), stage_channels=(8,), width=16, blocks_per_stage=0, context_layers=0
    ).model_copy(update={"decoder": "column"})
    model = build_model(definition, TrainingConfig())
    scores = model(torch.rand(2, 1, 64, 128))
    rows = model.read(scores)
    assert (scores.shape, rows.shape, model.confidence(scores, rows).shape) == ((2, 9, CLASSES), (2, 9), (2,))
