"""The complete model: encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces import ModelDefinition
from tuner.data.augmentation import distorted_copies, normalise
from tuner.models.decoders import DECODERS
from tuner.models.encoder import ColumnEncoder


class OCRNetwork(nn.Module):
    """Reads the characters in a grey image, from left to right.

    Shapes: N images, H = 64, W = 128, L label positions, C classes, T columns (32).

    Attributes:
        definition: The model definition.
    """

    def __init__(self, definition: ModelDefinition, *, classes: int, positions: int) -> None:
        super().__init__()
        self.definition = definition
        self.encoder = ColumnEncoder(definition)
        self.decoder = DECODERS[definition.decoder](definition.width, positions, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map grey images ``(N, 1, H, W)`` of any value range to scores, ``(N, L, C)`` or, with CTC, ``(N, T, C)``."""
        scores: Tensor = self.decoder(self.encoder(normalise(images)))
        return scores

    def read(self, scores: Tensor) -> Tensor:
        """Map scores to label sequences ``(N, L)``: characters, ``<EOS>``, ``<PAD>``."""
        return self.decoder.read(scores)

    def confidence(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Return the probability of each label sequence of `rows` ``(N, L)``, given its scores: ``(N,)``, 0 to 1."""
        return self.decoder.confidence(scores.float(), rows)

    def tta_confidence(self, images: Tensor, scores: Tensor, rows: Tensor) -> Tensor:
        """Return each label sequence's mean probability over its image and distorted copies of the image: ``(N,)``.

        This is test-time augmentation: a reading that changes under slight distortions is probably wrong, even if its
        confidence is high (Bahat and Shakhnarovich 2018, https://arxiv.org/abs/1804.00657).
        """
        every_score = [scores, *(self(copy) for copy in distorted_copies(images))]
        return torch.stack([self.confidence(each, rows) for each in every_score]).mean(0)
