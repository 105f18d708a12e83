"""The moving average of a model's weights, which is validated and kept."""

from __future__ import annotations

from itertools import compress

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

AVERAGED_EPOCHS = 4


class WeightAverage(AveragedModel):
    """A moving average of a model's weights and normalisation statistics, over about the last four epochs.

    A schedule that ends at a high rate leaves the weights wandering around a good place; their average is nearer to it
    (Polyak and Juditsky 1992). The first steps are forgotten faster: after n steps it reaches back n / 9 at most.
    """

    def __init__(self, model: nn.Module, steps_per_epoch: int) -> None:
        """Begin with a copy of a model, for epochs of so many optimizer steps."""
        super().__init__(model, use_buffers=True)
        self._slowest = 1 / (AVERAGED_EPOCHS * steps_per_epoch)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Follow a model after a step of its optimizer.

        PyTorch's own method moves its count of steps to a GPU and back at every step, and so waits for the GPU.
        """
        steps = int(self.n_averaged)  # it stays on the CPU
        share = max(self._slowest, 9 / (10 + steps)) if steps else 1.0
        averaged, followed = _tensors(self.module), _tensors(model)
        is_weight = [tensor.is_floating_point() for tensor in averaged]  # the others count batches
        torch._foreach_lerp_([*compress(averaged, is_weight)], [*compress(followed, is_weight)], share)
        is_count = [not weight for weight in is_weight]
        torch._foreach_copy_([*compress(averaged, is_count)], [*compress(followed, is_count)])
        self.n_averaged += 1


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
