"""How sure a model is of what it read.

Shapes: N images, L label positions, T output steps of a CTC model, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.data.vocabulary import BLANK, EOS


def attention_confidence(scores: Tensor, rows: Tensor) -> Tensor:
    """Return the probability ``(N,)`` of label rows ``(N, L)`` that were read from scores ``(N, L, C)``.

    It is the product over the read characters and the end mark; a row without one counts all its positions.
    """
    likeliest = scores.softmax(-1).amax(-1)
    ends = (rows == EOS).long()
    return likeliest.masked_fill(ends.cumsum(1) > ends, 1.0).prod(1)


def ctc_confidence(scores: Tensor, rows: Tensor) -> Tensor:
    """Return the probability ``(N,)`` of label rows ``(N, L)`` that were read from scores ``(N, T, C)``.

    It is the sum over all ways to spell the row's digits along the T steps, not that of the likeliest way alone.
    """
    lengths = (rows < EOS).sum(1)
    steps = torch.full_like(lengths, scores.shape[1])
    log_probabilities = scores.log_softmax(-1).transpose(0, 1)
    losses = F.ctc_loss(log_probabilities, rows, steps, lengths, blank=BLANK, reduction="none")
    return losses.neg().exp().clamp_max(1)  # rounding can leave it just above
