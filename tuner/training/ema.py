"""The moving average of a model's weights, which is validated and kept."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from tuner.models import DigitReader
from tuner.training.flat_parameters import FlatParameters

AVERAGED_EPOCHS = 4


class WeightEMA(nn.Module):
    """A moving average of a model's weights and normalisation statistics, over about the last four epochs.

    A schedule that ends at a high rate leaves the weights wandering around a good place; their average is nearer to it
    (Polyak and Juditsky 1992). The first steps are forgotten faster: after n steps it reaches back n / 9 at most.

    Attributes:
        module: The network with the averaged weights.
        n_averaged: How many steps it has followed, on the CPU: its value decides what is computed.
    """

    n_averaged: Tensor

    def __init__(self, model: DigitReader, weights: FlatParameters, steps_per_epoch: int) -> None:
        """Begin with a copy of a model and follow its weights, for epochs of so many optimizer steps."""
        super().__init__()
        self.module = deepcopy(model)
        self.register_buffer("n_averaged", torch.tensor(0))
        self._followed, self._averaged = weights, FlatParameters(self.module)
        self._slowest = 1 / (AVERAGED_EPOCHS * steps_per_epoch)

    def follow(self) -> None:
        """Follow the model after a step of its optimizer."""
        steps = int(self.n_averaged)
        share = max(self._slowest, 9 / (10 + steps)) if steps else 1.0
        self._averaged.approach(self._followed, share)
        self.n_averaged += 1
