"""Random distortion of whole batches of training images, on the device that holds them.

Shapes: N images, one grey channel, height H, width W.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Chosen so that what is drawn stays readable: an eight-digit label has 8 pixels a digit.
MAX_ROTATION = math.radians(2.5)
MAX_SHEAR = 0.06
ZOOM = (0.97, 1.12)  # of the view: mostly wider, so that labels which fill the image are not cut
LEAST_SHIFT = 0.03  # share of half the width, of half the height
MAX_TONE_CURVE = 0.6
MAX_BLUR = 0.4  # weight of the blurred image
MAX_NOISE = 0.08  # in standard deviations of the image


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Distort float images ``(N, 1, H, W)``, 0 to 1: affine map and contrast; blur and noise for some.

    Every random number comes from `generator`, so the same generator state gives the same bits on CPU. Batches are
    shuffled, so it is as random, and much cheaper, to blur every third image and to add noise to every second than to
    toss a coin for each.
    """
    draws = torch.rand((len(images), 9), generator=generator, device=images.device)
    grid = F.affine_grid(_affine_maps(draws, images), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = _bend_tones(images, draws[:, 6])
    images[::3] = _blur(images[::3], draws[::3, 7])
    images[::2] = _add_noise(images[::2], draws[::2, 8], generator)
    return images


def normalise(images: Tensor) -> Tensor:
    """Give every image ``(N, 1, H, W)`` mean 0 and standard deviation 1, so that ink and paper tones do not matter."""
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
    return (images - mean) / (deviation + 1e-5)


def _affine_maps(draws: Tensor, images: Tensor) -> Tensor:
    """Return ``(N, 2, 3)`` maps from output to input coordinates, both -1 to 1 across the image."""
    turn = _centred(draws[:, 0]) * MAX_ROTATION
    zoom_x, zoom_y = (ZOOM[0] + draws[:, index] * (ZOOM[1] - ZOOM[0]) for index in (1, 2))
    shear = _centred(draws[:, 3]) * MAX_SHEAR
    # As far as the wider view leaves room.
    shift_x, shift_y = (
        _centred(draws[:, index]) * (zoom - 1).clamp_min(LEAST_SHIFT) for index, zoom in ((4, zoom_x), (5, zoom_y))
    )
    aspect = images.shape[2] / images.shape[3]  # turns and shears are meant in pixels
    row_x = torch.stack([turn.cos() * zoom_x, (shear - turn.sin()) * zoom_y * aspect, shift_x], dim=1)
    row_y = torch.stack([turn.sin() * zoom_x / aspect, turn.cos() * zoom_y, shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def _bend_tones(images: Tensor, draw: Tensor) -> Tensor:
    """Change contrast by the curve ``x + c x (1 - x)``, which keeps black and white and the order of tones.

    A contrast that is only scaled would be undone by `normalise`.
    """
    bend = (_centred(draw) * MAX_TONE_CURVE).view(-1, 1, 1, 1)
    return torch.addcmul(images, bend * images, 1 - images)


def _blur(images: Tensor, strength: Tensor) -> Tensor:
    """Blend images with their 3 x 3 box blur."""
    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return torch.lerp(images, blurred, (strength * MAX_BLUR).view(-1, 1, 1, 1))


def _add_noise(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Add white noise to images, in proportion to their own contrast."""
    scale = images.std((1, 2, 3), keepdim=True) * MAX_NOISE * strength.view(-1, 1, 1, 1)
    return images + scale * torch.randn(images.shape, generator=generator, device=images.device)


def _centred(draw: Tensor) -> Tensor:
    return draw * 2 - 1
