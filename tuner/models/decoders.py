"""From column features to class scores.

Shapes: N images, T columns, D features, L label positions, C = 13 classes (ten digits, end, padding, blank).
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.data.vocabulary import EOS
from tuner.models.readings import read_attention, read_ctc

_SMALLEST_PROBABILITY = 1e-6  # what a class gets that the alignment rules out, so that its logarithm is finite


class MonotonicAttention(nn.Module):
    """Reads the columns from left to right and attends to each digit once.

    Every column has a probability that a digit is read there. Over all ways to choose the columns, the exact
    probability that the k-th digit is read at column t follows from one pass along the columns; these are position
    k's attention weights, and its digit scores are the columns' scores under them. What is left over says that the
    label has ended before position k. So order and counting need not be learned, only where digits are and which:
    training takes off within a few epochs where free attention over columns needs many.

    Source: the expected alignment of Raffel et al., "Online and Linear-Time Attention by Enforcing Monotonic
    Alignments", 2017 (https://arxiv.org/abs/1704.00784), here with at most one reading a column and counted exactly.
    """

    def __init__(self, width: int, positions: int, classes: int, expected_digits: float = 4.5) -> None:
        """Take D, L and C, and how many digits an untrained model reads of 32 columns."""
        super().__init__()
        self.positions = positions
        self.classes = classes
        self.digit = nn.Linear(width, EOS)
        self.reads = nn.Linear(width, 1)
        rate = expected_digits / 32
        nn.init.constant_(self.reads.bias, math.log(rate / (1 - rate)))

    def forward(self, columns: Tensor) -> Tensor:
        """Map ``(N, T, D)`` to log probabilities ``(N, L, C)``."""
        # Products of many probabilities: single precision, whatever the rest computes in.
        with torch.autocast(columns.device.type, enabled=False):
            columns = columns.float()
            reads = self.reads(columns).squeeze(-1).sigmoid()
            attention, count = _alignment(reads, self.positions)
            digits = attention @ self.digit(columns).softmax(-1)
            ended_before = F.pad(count.cumsum(1)[:, :-1], (1, 0))
            blank = digits.new_zeros(*digits.shape[:2], self.classes - EOS - 2)
            probabilities = torch.cat([digits, count.unsqueeze(-1), ended_before.unsqueeze(-1), blank], dim=-1)
            return (probabilities + _SMALLEST_PROBABILITY).log()

    def read(self, logits: Tensor) -> Tensor:
        """Map scores ``(N, L, C)`` to label rows ``(N, L)``."""
        return read_attention(logits)


class CTCDecoder(nn.Module):
    """Scores every column by itself; repeats and blanks are collapsed when reading (Graves et al. 2006)."""

    def __init__(self, width: int, positions: int, classes: int) -> None:
        """Take D, L and C."""
        super().__init__()
        self.positions = positions
        self.scores = nn.Linear(width, classes)

    def forward(self, columns: Tensor) -> Tensor:
        """Map ``(N, T, D)`` to logits ``(N, T, C)``."""
        return cast(Tensor, self.scores(columns)).float()

    def read(self, logits: Tensor) -> Tensor:
        """Map logits ``(N, T, C)`` to label rows ``(N, L)``."""
        return read_ctc(logits, self.positions)


def _alignment(reads: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """Count readings along the columns, exactly.

    Args:
        reads: Probability that a digit is read at a column, ``(N, T)``.
        positions: L.

    Returns:
        The probability that the k-th reading happens at column t, ``(N, L, T)``, and that there are k readings in
        all, ``(N, L)``, both for k from 0.
    """
    count = F.pad(reads.new_ones(len(reads), 1), (0, positions - 1))
    steps = []
    for read_here in reads.unbind(1):
        moves = count * read_here.unsqueeze(1)
        steps.append(moves)
        count = count - moves + F.pad(moves[:, :-1], (1, 0))
    return torch.stack(steps, dim=2), count
