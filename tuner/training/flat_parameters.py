"""A model's weights laid end to end, so that a step changes a few tensors instead of a hundred small ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def weight_decay_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return a model's parameters: those whose size matters, and those that a normalisation makes to be of any size.

    What comes out of a normalisation stays the same if the weights before it become smaller, but each step of an
    optimizer then turns them further. So weight decay restrains nothing there; it raises the learning rate (van
    Laarhoven 2017, "L2 regularization versus batch and weight normalization", https://arxiv.org/abs/1706.05350).
    With it, the presets lost a hundredth of their accuracy now and then, for several epochs.
    """
    chains = [module for module in model.modules() if isinstance(module, nn.Sequential)]
    sizeless = {
        id(layer.weight)
        for chain in chains
        for layer, following in pairwise(chain)
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d | nn.LayerNorm)
    }
    parameters = list(model.parameters())
    return (
        [parameter for parameter in parameters if id(parameter) not in sizeless],
        [parameter for parameter in parameters if id(parameter) in sizeless],
    )


class FlatParameters:
    """Two parameters that hold all of a model's, which become views of them; likewise what else a model keeps.

    It takes a kernel some microseconds to start, on a CPU as on a GPU, and most weights here are so few that changing
    them takes less. Optimizer, clipping and averaging have a kernel or two each this way.

    Attributes:
        values: The parameters whose size matters, see `weight_decay_groups`, and the others.
        statistics: The model's other floating-point tensors: means and variances of normalisation.
        counts: Its other integers: batches seen by normalisation.
    """

    def __init__(self, model: nn.Module) -> None:
        """Move the weights of a model, which is to stay on its device."""
        self._groups = weight_decay_groups(model)
        self.values = [nn.Parameter(_flatten(piece)) for piece in self._groups]
        buffers = list(model.buffers())
        self.statistics = _flatten([buffer for buffer in buffers if buffer.is_floating_point()])
        self.counts = _flatten([buffer for buffer in buffers if not buffer.is_floating_point()])

    def gather_gradient(self) -> None:
        """Move the gradient that backward passes have accumulated in the model here."""
        for flat, piece in zip(self.values, self._groups, strict=True):
            gradients = [parameter.grad for parameter in piece if parameter.grad is not None]
            # PyTorch lays a gradient as its parameter lies.
            flat.grad = torch.cat([_in_memory_order(gradient) for gradient in gradients])
        self.zero_grad()

    def zero_grad(self) -> None:
        """Set the gradients in the model to None."""
        for piece in self._groups:
            for parameter in piece:
                parameter.grad = None

    @torch.no_grad()
    def lerp_(self, other: FlatParameters, weight: float) -> None:
        """Interpolate, by a weight from 0 to 1, towards another model's weights and statistics; copy its counts."""
        for own, theirs in zip(self.values, other.values, strict=True):
            own.lerp_(theirs, weight)
        self.statistics.lerp_(other.statistics, weight)
        self.counts.copy_(other.counts)


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Return a new tensor of all elements; the given ones become views of it and keep their order in memory."""
    flat = torch.cat([_in_memory_order(tensor.detach()) for tensor in tensors])
    for tensor, piece in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.data = piece.as_strided(tensor.shape, tensor.stride())
    return flat


def _in_memory_order(tensor: Tensor) -> Tensor:
    """Return the elements of a tensor that lie together as they lie, channels innermost or not."""
    return tensor.as_strided((tensor.numel(),), (1,))
