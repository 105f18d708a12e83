"""Loss functions over whole labels.

Shapes: N images, L label positions (characters, ``<EOS>``, ``<PAD>``), T output steps of a CTC model, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces import ConfigurationError, TrainingConfig
from tuner.data.vocabulary import SpecialIndices


class LabelLoss(nn.Module):
    """A loss function that averages over label positions (CTC: over images).

    `count` returns the number of averaged positions or images, so that the mean losses of several batches can be
    combined into a weighted mean.
    """

    def __init__(self, vocab_size: int) -> None:
        """Set the number of classes C."""
        super().__init__()
        self.special = SpecialIndices.of(vocab_size)

    def count(self, labels: Tensor) -> Tensor:
        """Return the number of averaged positions of labels ``(N, L)``: those up to and including ``<EOS>``."""
        return (labels != self.special.pad).sum()


class CrossEntropy(LabelLoss):
    """Mean negative log likelihood of the label positions up to and including ``<EOS>``."""

    def __init__(self, vocab_size: int, label_smoothing: float = 0.0) -> None:
        """Set the number of classes, and the probability that is spread over all classes, at least 0 and below 1."""
        super().__init__(vocab_size)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of logits ``(N, L, C)`` and labels ``(N, L)``."""
        return F.cross_entropy(
            logits.flatten(0, 1),
            labels.flatten(),
            ignore_index=self.special.pad,
            label_smoothing=self.label_smoothing,
        )


class FocalLoss(LabelLoss):
    """Mean of ``-alpha * (1 - p)**gamma * log(p)``, where p is the probability of the true class (Lin et al. 2017)."""

    def __init__(self, vocab_size: int, alpha: float = 1.0, gamma: float = 2.0) -> None:
        """Set the number of classes, the scale `alpha` and the focusing parameter `gamma`.

        Alpha 1 and gamma 0 give cross-entropy.
        """
        super().__init__(vocab_size)
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of logits ``(N, L, C)`` and labels ``(N, L)``."""
        ignored = self.special.pad
        nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=ignored, reduction="none")
        # For gamma below 1, the gradient of (1 - p)**gamma is infinite at p = 1, so p stays slightly below 1.
        focus = (1 - torch.exp(-nll)).clamp_min(1e-7) ** self.gamma
        return self.alpha * (focus * nll).sum() / self.count(labels)


class CTCLoss(LabelLoss):
    """The CTC loss (Graves et al. 2006): the loss of an image per character, averaged over the images.

    A label that does not fit into T columns (with a blank between equal neighbours) has the loss 0.
    """

    def count(self, labels: Tensor) -> Tensor:
        """Return N, the number of averaged images of labels ``(N, L)``."""
        return labels.new_full((), len(labels))  # created on the device, because copying it there would synchronise

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of logits ``(N, T, C)`` and labels ``(N, L)``."""
        lengths = (labels < self.special.eos).sum(1)
        steps = torch.full_like(lengths, logits.shape[1])
        log_probabilities, blank = logits.log_softmax(-1).transpose(0, 1), self.special.blank
        return F.ctc_loss(log_probabilities, labels, steps, lengths, blank=blank, zero_infinity=True)


LOSSES: Mapping[str, Callable[[TrainingConfig], LabelLoss]] = {
    "crossentropy": lambda config: CrossEntropy(config.vocab_size, config.label_smoothing),
    "focal": lambda config: FocalLoss(config.vocab_size, config.focal_alpha, config.focal_gamma),
    "ctc": lambda config: CTCLoss(config.vocab_size),
}


def create_loss_function(config: TrainingConfig) -> LabelLoss:
    """Build the loss function that a configuration selects.

    Raises:
        ConfigurationError: `loss_type` is not in `LOSSES`.

    Example::

        import torch
        from tuner import TrainingConfig, create_loss_function

        loss_function = create_loss_function(TrainingConfig(loss_type="focal"))
        scores, labels = torch.randn(4, 9, 13), torch.randint(10, (4, 9))
        print(loss_function(scores, labels).item())
    """
    if config.loss_type not in LOSSES:
        raise ConfigurationError(f"loss_type: found {config.loss_type!r}; use one of {', '.join(sorted(LOSSES))}")
    return LOSSES[config.loss_type](config)
