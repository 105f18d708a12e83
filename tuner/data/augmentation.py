"""Random distortion of whole batches of training images, on the device that holds them.

Shapes: N images, one grey channel, height H, width W.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Chosen so that what is drawn stays readable: an eight-digit label has 8 pixels a digit.
MAX_ROTATION = math.radians(3.0)
MAX_SHEAR = 0.08
MAX_ZOOM = 0.12
MAX_SHIFT = (0.06, 0.10)  # share of half the width, of half the height
MAX_CONTRAST = 0.4
BLUR_SHARE = 0.3
NOISE_SHARE = 0.5
MAX_NOISE = 0.25  # in standard deviations of the image


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Distort float images ``(N, 1, H, W)``: affine map, contrast, blur and noise, each image on its own.

    Every random number comes from `generator`, so the same generator state gives the same bits on CPU.
    """
    draws = torch.rand((len(images), 12), generator=generator, device=images.device)
    grid = F.affine_grid(_affine_maps(draws, images), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + _centred(draws[:, 6]) * MAX_CONTRAST).view(-1, 1, 1, 1)
    images = _blur(images, draws[:, 7], draws[:, 8])
    return _add_noise(images, draws[:, 9], draws[:, 10], generator)


def normalise(images: Tensor) -> Tensor:
    """Give every image ``(N, 1, H, W)`` mean 0 and standard deviation 1, so that ink and paper tones do not matter."""
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
    return (images - mean) / (deviation + 1e-5)


def _affine_maps(draws: Tensor, images: Tensor) -> Tensor:
    """Return ``(N, 2, 3)`` maps from output to input coordinates, both -1 to 1 across the image."""
    turn = _centred(draws[:, 0]) * MAX_ROTATION
    zoom_x, zoom_y = (1 + _centred(draws[:, index]) * MAX_ZOOM for index in (1, 2))
    shear = _centred(draws[:, 3]) * MAX_SHEAR
    shift_x, shift_y = (_centred(draws[:, 4 + axis]) * MAX_SHIFT[axis] for axis in (0, 1))
    aspect = images.shape[2] / images.shape[3]  # turns and shears are meant in pixels
    row_x = torch.stack([turn.cos() * zoom_x, (shear - turn.sin()) * zoom_y * aspect, shift_x], dim=1)
    row_y = torch.stack([turn.sin() * zoom_x / aspect, turn.cos() * zoom_y, shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def _blur(images: Tensor, chosen: Tensor, strength: Tensor) -> Tensor:
    """Blend a share of the images with their 3 x 3 box blur."""
    weight = strength * (chosen < BLUR_SHARE)
    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return torch.lerp(images, blurred, weight.view(-1, 1, 1, 1))


def _add_noise(images: Tensor, chosen: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Add white noise to a share of the images, in proportion to their own contrast."""
    deviation = images.std((1, 2, 3), keepdim=True)
    scale = deviation * (MAX_NOISE * strength * (chosen < NOISE_SHARE)).view(-1, 1, 1, 1)
    return images + scale * torch.randn(images.shape, generator=generator, device=images.device)


def _centred(draw: Tensor) -> Tensor:
    return draw * 2 - 1
