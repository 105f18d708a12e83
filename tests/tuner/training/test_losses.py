import itertools
import math

import pytest
import torch

from search_spaces import ConfigurationError, TrainingConfig
from search_spaces.model_definitions import LOSSES_OF_DECODER
from tuner.data.vocabulary import Vocabulary
from tuner.models.decoders import CTCDecoder
from tuner.training.losses import LOSSES, CrossEntropy, CTCLoss, FocalLoss, create_loss_function

VOCABULARY = Vocabulary()
EOS, PAD, BLANK = VOCABULARY.special

CLASSES = 13
LABELS = torch.tensor([[3, 7, EOS, PAD], [5, EOS, PAD, PAD]])
COUNTED = 5  # label positions up to and including the end marks


def random_logits(*shape):
    return torch.randn(*shape, CLASSES, generator=torch.Generator().manual_seed(0))


def true_class_probabilities(logits):
    probabilities = logits.softmax(-1)
    positions = [(0, 0, 3), (0, 1, 7), (0, 2, EOS), (1, 0, 5), (1, 1, EOS)]
    return [float(probabilities[position]) for position in positions]


def test_cross_entropy_is_the_mean_over_positions_up_to_the_end_mark():
    logits = random_logits(2, 4)
    expected = -sum(map(math.log, true_class_probabilities(logits))) / COUNTED
    assert CrossEntropy(13)(logits, LABELS).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(13), CrossEntropy(13, 0.1), FocalLoss(13)], ids=["plain", "smoothed", "focal"]
)
def test_scores_at_padding_do_not_affect_the_loss(loss):
    logits = random_logits(2, 4)
    changed = logits.clone()
    changed[LABELS == PAD] = 100 * random_logits(3)
    assert torch.equal(loss(logits, LABELS), loss(changed, LABELS))


def test_label_smoothing_mixes_in_the_mean_over_all_classes():
    logits = random_logits(2, 4)
    uniform = -logits.log_softmax(-1)[LABELS != PAD].mean().item()
    expected = 0.8 * CrossEntropy(13)(logits, LABELS).item() + 0.2 * uniform
    assert CrossEntropy(13, 0.2)(logits, LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_equals_its_formula():
    logits = random_logits(2, 4)
    terms = [-0.25 * (1 - p) ** 1.5 * math.log(p) for p in true_class_probabilities(logits)]
    assert FocalLoss(13, alpha=0.25, gamma=1.5)(logits, LABELS).item() == pytest.approx(sum(terms) / COUNTED, rel=1e-5)


def test_focal_loss_with_gamma_zero_is_cross_entropy():
    logits = random_logits(2, 4)
    assert torch.allclose(FocalLoss(13, alpha=1, gamma=0)(logits, LABELS), CrossEntropy(13)(logits, LABELS))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_certain_readings_has_finite_gradients(gamma):
    logits = (1000 * torch.nn.functional.one_hot(LABELS, CLASSES).float()).requires_grad_()
    FocalLoss(13, gamma=gamma)(logits, LABELS).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_ctc_loss_equals_the_sum_over_all_alignments_per_digit():
    steps, length = 4, 4
    labels = torch.tensor([[2, 2, EOS, PAD], [1, EOS, PAD, PAD]])
    logits = random_logits(2, steps)
    logits[..., [c for c in range(CLASSES) if c not in (1, 2, BLANK)]] = -1e4  # leaves 3**4 possible alignments
    probability = torch.zeros(2)
    for path in itertools.product((1, 2, BLANK), repeat=steps):
        row = CTCDecoder(1, length, CLASSES).read(torch.nn.functional.one_hot(torch.tensor([path]), CLASSES))
        for image in range(2):
            if torch.equal(row[0], labels[image]):
                probabilities = logits[image].softmax(-1)
                probability[image] += math.prod(float(probabilities[t, c]) for t, c in enumerate(path))
    expected = (-probability[0].log() / 2 - probability[1].log()) / 2
    assert CTCLoss(13)(logits, labels).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "count"),
    [(CrossEntropy(13), COUNTED), (FocalLoss(13), COUNTED), (CTCLoss(13), 2)],
    ids=["plain", "focal", "ctc"],
)
def test_batch_means_weighted_by_count_give_the_overall_mean(loss, count):
    logits = random_logits(2, 9)
    labels = torch.nn.functional.pad(LABELS, (0, 5), value=PAD)
    assert loss.count(labels).item() == count
    parts = [(loss(logits[i : i + 1], labels[i : i + 1]), loss.count(labels[i : i + 1])) for i in range(2)]
    mean = sum(value * weight for value, weight in parts) / count
    assert torch.allclose(loss(logits, labels), torch.as_tensor(mean), rtol=1e-5)


def test_configuration_selects_the_loss():
    smoothed = create_loss_function(TrainingConfig(label_smoothing=0.3))
    assert isinstance(smoothed, CrossEntropy)
    assert smoothed.label_smoothing == 0.3
    focal = create_loss_function(TrainingConfig(loss_type="focal", focal_alpha=0.5, focal_gamma=3.0))
    assert isinstance(focal, FocalLoss)
    assert (focal.alpha, focal.gamma) == (0.5, 3.0)
    assert isinstance(create_loss_function(TrainingConfig(loss_type="ctc")), CTCLoss)
    with pytest.raises(ConfigurationError, match="'hinge'; use one of crossentropy, ctc, focal"):
        create_loss_function(TrainingConfig(loss_type="hinge"))


def test_every_loss_is_supported_by_a_decoder():
    assert set(LOSSES) == set(itertools.chain.from_iterable(LOSSES_OF_DECODER.values()))
