"""A model's weights in a few 1-D tensors, so that a step updates these instead of a hundred tensors, and their EMA."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn

from tuner.models.network import OCRNetwork


def weight_decay_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split a model's parameters into two groups: with weight decay, and without it because they are scale-invariant.

    Scaling the weights of a convolution does not change the output of the normalisation that follows, but a step
    changes small weights relatively more. So weight decay does not regularise these weights; it only raises their
    effective learning rate (van Laarhoven 2017, "L2 regularization versus batch and weight normalization",
    https://arxiv.org/abs/1706.05350). When all weights were decayed, the presets occasionally lost one percentage point
    of accuracy for several epochs.
    """
    chains = [module for module in model.modules() if isinstance(module, nn.Sequential)]
    scale_invariant = {
        id(layer.weight)
        for chain in chains
        for layer, following in pairwise(chain)
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d | nn.LayerNorm)
    }
    parameters = list(model.parameters())
    return (
        [parameter for parameter in parameters if id(parameter) not in scale_invariant],
        [parameter for parameter in parameters if id(parameter) in scale_invariant],
    )


class FlatParameters:
    """A few 1-D tensors with all parameters and buffers of a model; the model's own tensors become views of them.

    On a CPU and on a GPU, starting a kernel takes some microseconds, which is longer than the update of one of the many
    small tensors. With the 1-D tensors, the optimizer, gradient clipping and averaging need one or two kernels each.

    Attributes:
        values: One tensor for each group of `weight_decay_groups`: with weight decay, without weight decay.
        statistics: The floating-point buffers: running means and variances of the normalisation layers.
        counts: The integer buffers: number of batches that each normalisation layer has seen.
    """

    def __init__(self, model: nn.Module) -> None:
        """Flatten the parameters and buffers of a model, which must then stay on its device."""
        self._groups = weight_decay_groups(model)
        self.values = [nn.Parameter(_flatten(group)) for group in self._groups]
        buffers = list(model.buffers())
        self.statistics = _flatten([buffer for buffer in buffers if buffer.is_floating_point()])
        self.counts = _flatten([buffer for buffer in buffers if not buffer.is_floating_point()])

    def gather_gradient(self) -> None:
        """Move the accumulated gradients of the model to the gradients of `values`."""
        for flat, group in zip(self.values, self._groups, strict=True):
            gradients = [parameter.grad for parameter in group if parameter.grad is not None]
            # A gradient has the same strides as its parameter.
            flat.grad = torch.cat([_in_memory_order(gradient) for gradient in gradients])
        self.zero_grad()

    def zero_grad(self) -> None:
        """Set the gradients of the model to None."""
        for group in self._groups:
            for parameter in group:
                parameter.grad = None

    @torch.no_grad()
    def lerp_(self, other: FlatParameters, weight: float) -> None:
        """Interpolate values and statistics from this model (`weight` 0) to `other` (1); copy the counts of `other`."""
        for own, theirs in zip(self.values, other.values, strict=True):
            own.lerp_(theirs, weight)
        self.statistics.lerp_(other.statistics, weight)
        self.counts.copy_(other.counts)


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Copy tensors into one new 1-D tensor; each given tensor becomes a view of it with unchanged strides."""
    flat = torch.cat([_in_memory_order(tensor.detach()) for tensor in tensors])
    for tensor, values in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.data = values.as_strided(tensor.shape, tensor.stride())
    return flat


def _in_memory_order(tensor: Tensor) -> Tensor:
    """View a dense tensor, contiguous or channels last, as a 1-D tensor in memory order."""
    return tensor.as_strided((tensor.numel(),), (1,))


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
