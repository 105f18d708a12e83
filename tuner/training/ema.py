"""The exponential moving average (EMA) of a model's weights, which is validated and saved."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from tuner.models import OCRNetwork
from tuner.training.flat_parameters import FlatParameters

EMA_EPOCHS = 4


class WeightEMA(nn.Module):
    """An exponential moving average of a model's weights and normalisation statistics.

    The time constant of the average is `EMA_EPOCHS` epochs, but at most n / 9 steps after n steps. A schedule that ends
    at a high learning rate leaves the weights oscillating around an optimum; the average of the weights is closer to
    the optimum (Polyak and Juditsky 1992).

    Attributes:
        module: The network with the averaged weights.
        n_averaged: Number of updates so far; a CPU tensor, because Python code reads its value.
    """

    n_averaged: Tensor

    def __init__(self, model: OCRNetwork, weights: FlatParameters, steps_per_epoch: int) -> None:
        """Start with a copy of `model`; `weights` are the flat parameters of `model`."""
        super().__init__()
        self.module = deepcopy(model)
        self.register_buffer("n_averaged", torch.tensor(0))
        self._weights, self._averaged = weights, FlatParameters(self.module)
        self._min_weight = 1 / (EMA_EPOCHS * steps_per_epoch)

    def update(self) -> None:
        """Update the average after an optimizer step."""
        steps = int(self.n_averaged)
        self._averaged.lerp_(self._weights, max(self._min_weight, 9 / (10 + steps)) if steps else 1.0)
        self.n_averaged += 1
