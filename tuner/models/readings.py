"""From a model's logits to label rows.

Shapes: N images, L label positions, T output steps of a CTC model, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tuner.data.vocabulary import EOS, PAD


def read_attention(logits: Tensor) -> Tensor:
    """Turn logits ``(N, L, C)`` into label rows ``(N, L)``: the likeliest classes, padded after the first ``<EOS>``."""
    rows = logits.argmax(-1)
    ended = (rows == EOS).cumsum(1) - (rows == EOS).long() > 0
    return rows.masked_fill(ended, PAD)


def read_ctc(logits: Tensor, length: int) -> Tensor:
    """Turn logits ``(N, T, C)`` into label rows ``(N, length)`` by greedy collapse: drop repeats, then blanks.

    A reading longer than ``length - 1`` digits keeps its first `length` classes and has no ``<EOS>``, so it never
    equals a label.
    """
    best = logits.argmax(-1)
    new = torch.ones_like(best, dtype=torch.bool)
    new[:, 1:] = best[:, 1:] != best[:, :-1]
    kept = new & (best < EOS)
    # Each kept class moves to its rank; all else, and what is too long, falls into a spare last column.
    rank = torch.where(kept, kept.cumsum(1) - 1, length).clamp_max(length)
    rows = best.new_full((len(best), length + 1), PAD).scatter_(1, rank, torch.where(kept, best, PAD))
    ends = kept.sum(1, keepdim=True).clamp_max(length)
    return rows.scatter_(1, ends, EOS)[:, :length]
