"""The exponential moving average (EMA) of a model's weights, which is validated and kept."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from tuner.models import DigitReader
from tuner.training.flat_parameters import FlatParameters

EMA_EPOCHS = 4


class WeightEMA(nn.Module):
    """An exponential moving average of a model's weights and normalisation statistics.

    Its time constant is `EMA_EPOCHS` epochs, and n / 9 steps at most after n steps. A schedule that ends at a high
    rate leaves the weights oscillating around an optimum; their average is nearer to it (Polyak and Juditsky 1992).

    Attributes:
        module: The network with the averaged weights.
        n_averaged: Number of updates, on the CPU because its value decides what is computed.
    """

    n_averaged: Tensor

    def __init__(self, model: DigitReader, weights: FlatParameters, steps_per_epoch: int) -> None:
        """Start with a copy of a model, its flat parameters, and the number of optimizer steps per epoch."""
        super().__init__()
        self.module = deepcopy(model)
        self.register_buffer("n_averaged", torch.tensor(0))
        self._weights, self._averaged = weights, FlatParameters(self.module)
        self._min_weight = 1 / (EMA_EPOCHS * steps_per_epoch)

    def update(self) -> None:
        """Include the model's weights after a step of its optimizer."""
        steps = int(self.n_averaged)
        self._averaged.lerp_(self._weights, max(self._min_weight, 9 / (10 + steps)) if steps else 1.0)
        self.n_averaged += 1
