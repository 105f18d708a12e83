"""A model's weights laid end to end, so that a step changes one tensor instead of a hundred small ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FlatWeights:
    """One parameter that holds all of a model's, which become views of it; likewise what else a model keeps.

    It takes a kernel some microseconds to start, on a CPU as on a GPU, and most weights here are so few that changing
    them takes less. Optimizer, clipping and averaging have a kernel or two each this way.

    Attributes:
        values: The parameters of the model.
        statistics: Its other floating-point tensors: means and variances of normalisation.
        counts: Its other integers: batches seen by normalisation.
    """

    def __init__(self, model: nn.Module) -> None:
        """Move the weights of a model, which is to stay on its device."""
        self._parameters = list(model.parameters())
        self.values = nn.Parameter(_lay_end_to_end(self._parameters))
        buffers = list(model.buffers())
        self.statistics = _lay_end_to_end([buffer for buffer in buffers if buffer.is_floating_point()])
        self.counts = _lay_end_to_end([buffer for buffer in buffers if not buffer.is_floating_point()])

    def gather_gradient(self) -> None:
        """Take over the gradient that backward passes have left in the model."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        self.values.grad = torch.cat([gradient.flatten() for gradient in gradients])
        self.forget_gradient()

    def forget_gradient(self) -> None:
        """Leave no gradient in the model."""
        for parameter in self._parameters:
            parameter.grad = None


def _lay_end_to_end(tensors: Sequence[Tensor]) -> Tensor:
    """Return a new tensor of all elements; the given ones become views of it."""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    for tensor, piece in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.data = piece.view_as(tensor)
    return flat
