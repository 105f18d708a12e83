"""The decoders: from column features to class scores, label rows and confidences.

To add a decoder: a subclass of `Decoder`, its entry in `DECODERS`, and its row in
`search_spaces.model_definitions.LOSSES_OF_DECODER`, which names the losses that it learns with.

Shapes: N images, T columns, D features, L label positions, S score steps (L or T), C = 13 classes (ten digits, end,
padding, blank).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from tuner.data.vocabulary import BLANK, EOS, PAD

# Log probability of what the alignment rules out (a padding in front, a blank): small, but finite, so that label
# smoothing has a finite loss.
_RULED_OUT = -14.0
_NEVER = -1e4  # stands for log 0 where infinities would make gradients undefined


class Decoder(nn.Module, ABC):
    """Scores the columns of an image and reads the label from the scores."""

    def __init__(self, width: int, positions: int, classes: int) -> None:
        super().__init__()
        self.positions = positions
        self.classes = classes

    @abstractmethod
    def forward(self, columns: Tensor) -> Tensor:
        """Map columns ``(N, T, D)`` to scores ``(N, S, C)`` in single precision."""

    @abstractmethod
    def read(self, scores: Tensor) -> Tensor:
        """Map scores ``(N, S, C)`` to label rows ``(N, L)``: digits, ``<EOS>``, ``<PAD>``."""

    @abstractmethod
    def confidence(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Return the probability ``(N,)``, 0 to 1, that scores ``(N, S, C)`` give to rows ``(N, L)``."""


class MonotonicAttention(Decoder):
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
        """Take D, L and C, and the number of digits that an untrained model reads from 32 columns."""
        super().__init__(width, positions, classes)
        self.digit = nn.Linear(width, EOS)
        self.reads = nn.Linear(width, 1)
        rate = expected_digits / 32
        # Undecided at first: a high initial learning rate would harden random guesses.
        nn.init.zeros_(self.digit.weight)
        nn.init.zeros_(self.reads.weight)
        nn.init.constant_(self.reads.bias, math.log(rate / (1 - rate)))

    def forward(self, columns: Tensor) -> Tensor:
        """Map ``(N, T, D)`` to log probabilities ``(N, L, C)``."""
        # Sums of many logarithms: single precision, whatever the rest computes in.
        with torch.autocast(columns.device.type, enabled=False):
            columns = columns.float()
            attention, count = _alignment(self.reads(columns).squeeze(-1), self.positions)
            digit_scores = self.digit(columns).log_softmax(-1)
            digits = torch.logsumexp(attention.unsqueeze(-1) + digit_scores.unsqueeze(1), dim=2)
            ended_before = F.pad(count.logcumsumexp(1)[:, :-1], (1, 0), value=_RULED_OUT)
            blank = digits.new_full((*digits.shape[:2], self.classes - EOS - 2), _RULED_OUT)
            return torch.cat([digits, count.unsqueeze(-1), ended_before.unsqueeze(-1), blank], dim=-1)

    def read(self, scores: Tensor) -> Tensor:
        """Return the likeliest classes, padded after the first ``<EOS>``."""
        rows = scores.argmax(-1)
        return rows.masked_fill(_is_after_end(rows), PAD)

    def confidence(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Return the product over the read characters and the end mark; without an end mark, over all positions."""
        characters = scores.softmax(-1).gather(-1, rows.unsqueeze(-1)).squeeze(-1)
        return characters.masked_fill(_is_after_end(rows), 1.0).prod(1)


class CTCDecoder(Decoder):
    """Scores every column by itself; repeats and blanks are collapsed when reading (Graves et al. 2006)."""

    def __init__(self, width: int, positions: int, classes: int) -> None:
        super().__init__(width, positions, classes)
        self.scores = nn.Linear(width, classes)

    def forward(self, columns: Tensor) -> Tensor:
        """Map ``(N, T, D)`` to logits ``(N, T, C)``."""
        return cast(Tensor, self.scores(columns)).float()

    def read(self, scores: Tensor) -> Tensor:
        """Collapse the likeliest classes: drop repeats, then blanks.

        A reading longer than L - 1 digits keeps its first L classes and has no ``<EOS>``, so it never equals a label.
        """
        length = self.positions
        best = scores.argmax(-1)
        new = torch.ones_like(best, dtype=torch.bool)
        new[:, 1:] = best[:, 1:] != best[:, :-1]
        kept = new & (best < EOS)
        # Each kept class moves to its rank; all else, and what is too long, falls into a spare last column.
        rank = torch.where(kept, kept.cumsum(1) - 1, length).clamp_max(length)
        rows = best.new_full((len(best), length + 1), PAD).scatter_(1, rank, torch.where(kept, best, PAD))
        ends = kept.sum(1, keepdim=True).clamp_max(length)
        return rows.scatter_(1, ends, EOS)[:, :length]

    def confidence(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Return the sum over all ways to spell the row's digits along the T steps, not that of the likeliest alone."""
        lengths = (rows < EOS).sum(1)
        steps = torch.full_like(lengths, scores.shape[1])
        log_probabilities = scores.log_softmax(-1).transpose(0, 1)
        losses = F.ctc_loss(log_probabilities, rows, steps, lengths, blank=BLANK, reduction="none")
        return losses.neg().exp().clamp_max(1)  # rounding can leave it just above


DECODERS: Mapping[str, type[Decoder]] = {"attention": MonotonicAttention, "ctc": CTCDecoder}


def _is_after_end(rows: Tensor) -> Tensor:
    """Return which positions of rows ``(N, L)`` lie after the first ``<EOS>``."""
    ends = (rows == EOS).long()
    return ends.cumsum(1) > ends


def _alignment(reads: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """Count readings along the columns, exactly.

    In logarithms, so that a certainty however wrong still has a gradient that leads out of it.

    Args:
        reads: Logit of the probability that a digit is read at a column, ``(N, T)``.
        positions: L.

    Returns:
        The log probability that the k-th reading happens at column t, ``(N, L, T)``, and that there are k readings in
        all, ``(N, L)``, both for k from 0.
    """
    moves, count = _Counting.apply(reads.t().unsqueeze(2), positions)  # type: ignore[no-untyped-call]
    return moves.permute(1, 2, 0), count


class _Counting(torch.autograd.Function):
    """The recursion along the columns, with its gradient written out: 32 steps of a few small kernels each.

    Left to autograd it takes twice as long, which in the smallest model is a twentieth of a step.

    With ``count[t, k]`` the log probability of k readings before column t, and the log probabilities ``here`` and
    ``elsewhere`` that column t is read and is not, the k-th reading happens there with ``move = count + here``, and
    ``count[t + 1, k] = log(exp(count[t, k] + elsewhere[t]) + exp(move[t, k - 1]))``.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, reads: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        """Map ``(T, N, 1)`` to the moves ``(T, N, L)`` and the last count ``(N, L)``."""
        here = F.logsigmoid(reads)
        elsewhere = here - reads  # the logarithm of the opposite probability
        counts = reads.new_full((len(reads) + 1, reads.shape[1], positions), _NEVER)
        counts[0, :, 0] = 0.0
        moves = torch.empty_like(counts[1:])
        for column, (before, after) in enumerate(pairwise(counts)):
            torch.add(before, here[column], out=moves[column])
            torch.add(before, elsewhere[column], out=after)
            torch.logaddexp(after[:, 1:], moves[column, :, :-1], out=after[:, 1:])
        ctx.save_for_backward(reads, counts, moves)
        return moves, counts[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, moves_gradient: Tensor, count_gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits ``(T, N, 1)``."""
        reads, counts, moves = ctx.saved_tensors
        # Which share of a count came from where.
        stayed = (counts[:-1] + F.logsigmoid(-reads) - counts[1:]).exp_()
        moved = (moves[..., :-1] - counts[1:, :, 1:]).exp_()
        to_moves = moves_gradient.clone()
        to_stays = torch.empty_like(to_moves)
        gradient = count_gradient
        for column in reversed(range(len(reads))):
            torch.mul(gradient, stayed[column], out=to_stays[column])
            to_moves[column, :, :-1].addcmul_(gradient[:, 1:], moved[column])
            gradient = to_stays[column] + to_moves[column]
        read = reads.sigmoid()
        here, elsewhere = to_moves.sum(-1, keepdim=True), to_stays.sum(-1, keepdim=True)
        return here * (1 - read) - elsewhere * read, None
