"""Decoders, which map column features to class scores, and scores to label sequences and confidences.

To add a decoder, write a subclass of `Decoder`, add it to `DECODERS`, and add the loss functions that can train it to
`search_spaces.model_definitions.LOSSES_OF_DECODER`.

Shapes: N images, T columns, D features, L label positions, S score steps (L or T), C classes (K characters, then
``<EOS>``, ``<PAD>``, ``<BLANK>``).
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

from tuner.data.vocabulary import SpecialIndices
from tuner.models.encoder import COLUMNS

# Log probability of impossible classes (a blank, or padding at the start): finite, so that label smoothing has a finite
# loss.
LOG_FLOOR = -14.0
_LOG_ZERO = -1e4  # used for log 0, because infinities would make gradients undefined


class Decoder(nn.Module, ABC):
    """The interface of a decoder, which scores the columns of an image and reads the label from the scores."""

    def __init__(self, width: int, positions: int, classes: int) -> None:
        super().__init__()
        self.positions = positions
        self.special = SpecialIndices.of(classes)

    @abstractmethod
    def forward(self, columns: Tensor) -> Tensor:
        """Map columns ``(N, T, D)`` to scores ``(N, S, C)`` in single precision."""

    @abstractmethod
    def read(self, scores: Tensor) -> Tensor:
        """Map scores ``(N, S, C)`` to label sequences ``(N, L)``: characters, ``<EOS>``, ``<PAD>``."""

    @abstractmethod
    def confidence(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Return the probability of each label sequence of `rows` ``(N, L)``, given its scores: ``(N,)``, 0 to 1."""


class MonotonicAttention(Decoder):
    """Reads the columns from left to right and attends to each character once.

    Each column has a probability that a character is read there. One pass along the columns computes the exact
    probability that the k-th character is read at column t, summed over all selections of columns. These are the
    attention weights with which position k averages the character scores of the columns. The remaining probability is
    that of labels that end before position k. The network therefore learns only which characters are where, not their
    order and number: accuracy rises within a few epochs, while unconstrained attention over columns needs many epochs.

    Source: the expected alignment of Raffel et al., "Online and Linear-Time Attention by Enforcing Monotonic
    Alignments", 2017 (https://arxiv.org/abs/1704.00784), here computed exactly and with at most one character per
    column.
    """

    def __init__(self, width: int, positions: int, classes: int) -> None:
        super().__init__(width, positions, classes)
        self.character = nn.Linear(width, self.special.eos)
        self.reads = nn.Linear(width, 1)
        rate = positions / 2 / COLUMNS  # an untrained model reads a label of medium length
        # Start with equal probabilities: a high initial learning rate would make random initial guesses certain.
        nn.init.zeros_(self.character.weight)
        nn.init.zeros_(self.reads.weight)
        nn.init.constant_(self.reads.bias, math.log(rate / (1 - rate)))

    def forward(self, columns: Tensor) -> Tensor:
        """Map ``(N, T, D)`` to log probabilities ``(N, L, C)``."""
        # Sums of many logarithms need single precision, even under autocast.
        with torch.autocast(columns.device.type, enabled=False):
            columns = columns.float()
            attention, count = _alignment(self.reads(columns).squeeze(-1), self.positions)
            column_scores = self.character(columns).log_softmax(-1)
            characters = torch.logsumexp(attention.unsqueeze(-1) + column_scores.unsqueeze(1), dim=2)
            ended_before = F.pad(count.logcumsumexp(1)[:, :-1], (1, 0), value=LOG_FLOOR)
            blank = characters.new_full((*characters.shape[:2], 1), LOG_FLOOR)
            return torch.cat([characters, count.unsqueeze(-1), ended_before.unsqueeze(-1), blank], dim=-1)

    def read(self, scores: Tensor) -> Tensor:
        """Return the most likely class of each position, and ``<PAD>`` after the first ``<EOS>``."""
        rows = scores.argmax(-1)
        return rows.masked_fill(_is_after_end(rows, self.special.eos), self.special.pad)

    def confidence(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Return the product of the class probabilities up to and including ``<EOS>``, or of all L positions."""
        characters = scores.softmax(-1).gather(-1, rows.unsqueeze(-1)).squeeze(-1)
        return characters.masked_fill(_is_after_end(rows, self.special.eos), 1.0).prod(1)


class CTCDecoder(Decoder):
    """Scores each column separately; reading collapses repeats and drops blanks (Graves et al. 2006)."""

    def __init__(self, width: int, positions: int, classes: int) -> None:
        super().__init__(width, positions, classes)
        self.scores = nn.Linear(width, classes)

    def forward(self, columns: Tensor) -> Tensor:
        """Map ``(N, T, D)`` to logits ``(N, T, C)``."""
        return cast(Tensor, self.scores(columns)).float()

    def read(self, scores: Tensor) -> Tensor:
        """Collapse the most likely classes: drop repeats, then blanks.

        A reading longer than L - 1 characters keeps its first L classes and has no ``<EOS>``, so it never equals a
        label.
        """
        length, (eos, pad, _) = self.positions, self.special
        best = scores.argmax(-1)
        new = torch.ones_like(best, dtype=torch.bool)
        new[:, 1:] = best[:, 1:] != best[:, :-1]
        kept = new & (best < eos)
        # Each kept class moves to its rank; all other classes, and those beyond L, go to an extra last column.
        rank = torch.where(kept, kept.cumsum(1) - 1, length).clamp_max(length)
        rows = best.new_full((best.shape[0], length + 1), pad).scatter_(1, rank, torch.where(kept, best, pad))
        ends = kept.sum(1, keepdim=True).clamp_max(length)
        return rows.scatter_(1, ends, eos)[:, :length]

    def confidence(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Return the total probability of all alignments of the characters with T columns, not only of the best one.

        This is the forward algorithm of Graves et al. 2006 (equations 6 to 8) in plain operations, which also work in
        an exported graph, unlike `F.ctc_loss`. Probabilities instead of logarithms suffice: a sum that underflows is 0.
        """
        blank = self.special.blank
        characters = rows.masked_fill(rows >= self.special.eos, blank)
        # A blank before and after each character, (N, 2 L + 1).
        states = F.pad(torch.stack([torch.full_like(rows, blank), characters], 2).flatten(1), (0, 1), value=blank)
        may_skip = (states != blank) & (states != F.pad(states[:, :-2], (2, 0), value=blank))
        emitted = scores.softmax(-1).gather(2, states.unsqueeze(1).expand(-1, scores.shape[1], -1)).unbind(1)
        forward = F.pad(emitted[0][:, :2], (0, states.shape[1] - 2))
        for probabilities in emitted[1:]:
            skipped = F.pad(forward[:, :-2], (2, 0)) * may_skip
            forward = (forward + F.pad(forward[:, :-1], (1, 0)) + skipped) * probabilities
        end = 2 * (rows < self.special.eos).sum(1, keepdim=True)
        # The last character or the blank after it; without characters, the first blank.
        state = torch.arange(states.shape[1], device=rows.device)
        return (forward * ((state == end) | (state == end - 1))).sum(1).clamp_max(1)  # rounding can exceed 1 slightly


DECODERS: Mapping[str, type[Decoder]] = {"attention": MonotonicAttention, "ctc": CTCDecoder}


def _is_after_end(rows: Tensor, eos: int) -> Tensor:
    """Return a mask of the positions of rows ``(N, L)`` after the first ``<EOS>``, which is the class `eos`."""
    ends = (rows == eos).long()
    return ends.cumsum(1) > ends


def _alignment(reads: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """Compute the exact distribution of the read characters over the columns.

    Logarithms are used, so that even a wrong character with probability near 1 has a gradient that corrects it.

    Args:
        reads: Logit of the probability that a character is read at a column, ``(N, T)``.
        positions: L.

    Returns:
        The log probability that character k (from 0) is read at column t, ``(N, L, T)``, and the log probability that
        k characters are read in total, ``(N, L)``.
    """
    aligned, count = _AlignmentRecursion.apply(reads.t().unsqueeze(2), positions)  # type: ignore[no-untyped-call]
    return aligned.permute(1, 2, 0), count


class _AlignmentRecursion(torch.autograd.Function):
    """The recursion along the columns with an explicit gradient: 32 steps of a few small kernels each.

    With autograd, the recursion would take twice as long, which is 5 % of a training step of the smallest model.

    Let ``count[t, k]`` be the log probability that k characters are read before column t, and ``read[t]`` and
    ``skip[t]`` the log probabilities of reading and skipping column t. Character k (from 0) is read at column t with
    log probability ``aligned[t, k] = count[t, k] + read[t]``, so that ``count[t + 1, k] = log(exp(count[t, k] +
    skip[t]) + exp(aligned[t, k - 1]))``.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, reads: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        """Map logits ``(T, N, 1)`` to ``aligned`` ``(T, N, L)`` and ``count[T]`` ``(N, L)``, after all columns."""
        read = F.logsigmoid(reads)
        skip = read - reads  # log(1 - p)
        counts = reads.new_full((len(reads) + 1, reads.shape[1], positions), _LOG_ZERO)
        counts[0, :, 0] = 0.0
        aligned = torch.empty_like(counts[1:])
        for column, (before, after) in enumerate(pairwise(counts)):
            torch.add(before, read[column], out=aligned[column])
            torch.add(before, skip[column], out=after)
            torch.logaddexp(after[:, 1:], aligned[column, :, :-1], out=after[:, 1:])
        ctx.save_for_backward(reads, counts, aligned)
        return aligned, counts[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, aligned_gradient: Tensor, count_gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits ``(T, N, 1)``."""
        reads, counts, aligned = ctx.saved_tensors
        # The fractions of each count that come from skipping and from reading the column.
        skipped_fraction = (counts[:-1] + F.logsigmoid(-reads) - counts[1:]).exp_()
        read_fraction = (aligned[..., :-1] - counts[1:, :, 1:]).exp_()
        to_aligned = aligned_gradient.clone()
        to_skipped = torch.empty_like(to_aligned)
        gradient = count_gradient
        for column in reversed(range(len(reads))):
            torch.mul(gradient, skipped_fraction[column], out=to_skipped[column])
            to_aligned[column, :, :-1].addcmul_(gradient[:, 1:], read_fraction[column])
            gradient = to_skipped[column] + to_aligned[column]
        probability = reads.sigmoid()
        to_read, to_skip = to_aligned.sum(-1, keepdim=True), to_skipped.sum(-1, keepdim=True)
        return to_read * (1 - probability) - to_skip * probability, None
