"""The scores of a model on a split: loss, accuracies and the reading of each image.

Shapes: N images, L label positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.data.batches import SplitBatches, split_batch
from tuner.models.network import OCRNetwork
from tuner.training.losses import LabelLoss


@dataclass
class Accuracy:
    """Counts of correct characters and sequences, kept on the device until an accuracy is computed.

    A character is a label position up to and including ``<EOS>``; a sequence is correct if all its characters are.

    Attributes:
        pad: The class ``<PAD>``, which is not counted.
    """

    pad: int
    characters: Tensor | int = 0
    correct_characters: Tensor | int = 0
    sequences: int = 0
    correct_sequences: Tensor | int = 0

    def update(self, rows: Tensor, labels: Tensor) -> None:
        """Compare readings with their labels, both ``(N, L)``, and add the results to the counts."""
        counted = labels != self.pad
        correct = (rows == labels) & counted
        self.characters += counted.sum()
        self.correct_characters += correct.sum()
        self.sequences += len(labels)
        self.correct_sequences += (correct | ~counted).all(1).sum()

    def character_accuracy(self) -> float:
        """Return the fraction of correct characters, 0 to 1; 0 if nothing was counted."""
        return float(self.correct_characters) / max(1.0, float(self.characters))

    def sequence_accuracy(self) -> float:
        """Return the fraction of correct sequences, 0 to 1; 0 if nothing was counted."""
        return float(self.correct_sequences) / max(1, self.sequences)


@dataclass(frozen=True)
class SplitScore:
    """The score of a model on a split; the N images are in the order of the split.

    Attributes:
        loss: Mean loss over all terms that `LabelLoss.count` counts.
        accuracy: Counts of correct characters and sequences.
        rows: The label sequences that were read, ``(N, L)``, 16-bit integers on the CPU.
        confidence: The model's probability of each label sequence, ``(N,)``, 0 to 1, on the CPU.
    """

    loss: float
    accuracy: Accuracy
    rows: Tensor
    confidence: Tensor


@torch.inference_mode()
def score_split(
    model: OCRNetwork,
    loss: LabelLoss,
    batches: SplitBatches,
    autocast: Callable[[], torch.autocast],
    *,
    micro_batch_size: int | None = None,
    distorted: bool = False,
) -> SplitScore:
    """Score a model on a split, in evaluation mode.

    `autocast` returns the precision context of forward passes. `micro_batch_size` is the maximum number of images per
    pass; None for whole batches. If `distorted`, the confidences are those of `OCRNetwork.tta_confidence`, which takes
    four times as long.
    """
    model.eval()
    accuracy = Accuracy(loss.special.pad)
    # Double precision, because many batches are added; on the device, to synchronise only at the end.
    total, count = (torch.zeros((), dtype=torch.float64, device=batches.device) for _ in range(2))
    rows, confidence = [], []
    passes = (micro_batch for batch in batches.epoch(0) for micro_batch in split_batch(batch, micro_batch_size))
    for images, labels in passes:
        with autocast():
            scores = model(images)
            weight = loss.count(labels)
            total, count = total + loss(scores, labels).double() * weight, count + weight
        rows.append(model.read(scores))
        if distorted:
            with autocast():
                confidence.append(model.tta_confidence(images, scores, rows[-1]))
        else:
            confidence.append(model.confidence(scores, rows[-1]))
        accuracy.update(rows[-1], labels)
    readings = torch.cat(rows).short().cpu(), torch.cat(confidence).float().cpu()
    return SplitScore(float(total / count), accuracy, *readings)
