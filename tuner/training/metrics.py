"""How right readings are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tuner.data.vocabulary import PAD


@dataclass
class Accuracy:
    """Counts of right characters and right sequences; they stay on the device until asked for.

    A character is a label position up to and including ``<EOS>``; a sequence is right if all of its characters are.
    """

    characters: Tensor | int = 0
    right_characters: Tensor | int = 0
    sequences: int = 0
    right_sequences: Tensor | int = 0

    def update(self, rows: Tensor, labels: Tensor) -> None:
        """Count readings against labels, both ``(N, L)``: N images, L label positions."""
        counted = labels != PAD
        right = (rows == labels) & counted
        self.characters += counted.sum()
        self.right_characters += right.sum()
        self.sequences += len(labels)
        self.right_sequences += (right | ~counted).all(1).sum()

    def character_accuracy(self) -> float:
        """Return the share of right characters, 0 to 1; 0 if none was counted."""
        return float(self.right_characters) / max(1.0, float(self.characters))

    def sequence_accuracy(self) -> float:
        """Return the share of right sequences, 0 to 1; 0 if none was counted."""
        return float(self.right_sequences) / max(1, self.sequences)
