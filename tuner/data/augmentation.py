"""Random distortion of whole batches of training images, on the device that holds them.

Shapes: N images, one grey channel, height H, width W.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.seeds import derived_seed

# Chosen so that what is drawn stays readable: an eight-digit label has 8 pixels a digit.
MAX_ROTATION = math.radians(2.5)
MAX_SHEAR = 0.06
ZOOM = (0.97, 1.12)  # of the view: mostly wider, so that labels which fill the image are not cut
LEAST_SHIFT = 0.03  # share of half the width, of half the height
MAX_TONE_CURVE = 0.6
MAX_BLUR = 0.4  # weight of the blurred image
MAX_NOISE = 0.08  # in standard deviations of the image

_NOISE_VALUES = 1 << 20


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Distort float images ``(N, 1, H, W)``, 0 to 1: affine map and contrast; blur and noise for some.

    Every random number comes from `generator`, so the same generator state gives the same bits on CPU. Batches are
    shuffled, so it is as random, and much cheaper, to blur every third image and to add noise to every second than to
    toss a coin for each.
    """
    draws = torch.rand((len(images), 10), generator=generator, device=images.device)
    grid = _grid(_affine_maps(draws, images), images)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    _bend_tones(images, draws[:, 6])
    _blur(images[::3], draws[::3, 7])
    _add_noise(images[::2], draws[::2, 8], draws[::2, 9])
    return images


def normalise(images: Tensor) -> Tensor:
    """Give every image ``(N, 1, H, W)`` mean 0 and standard deviation 1, so that ink and paper tones do not matter."""
    return F.group_norm(images, 1, eps=1e-10)


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


def _grid(maps: Tensor, images: Tensor) -> Tensor:
    """Return where each pixel's tone comes from, ``(N, H, W, 2)``: `F.affine_grid`, in a twentieth of its time.

    Sampling is faster too where x and y lie apart in memory.
    """
    height, width = images.shape[2:]
    across, down = (_pixel_centres(size, images.device) for size in (width, height))
    from_x = maps[:, :, 0, None, None] * across
    from_y = maps[:, :, 1, None, None] * down[:, None] + maps[:, :, 2, None, None]
    return (from_x + from_y).permute(0, 2, 3, 1)


@cache
def _pixel_centres(size: int, device: torch.device) -> Tensor:
    """Return coordinates of the pixels of a row or column, -1 to 1 from edge to edge."""
    return (torch.arange(size, device=device) * 2 + 1) / size - 1


def _bend_tones(images: Tensor, draw: Tensor) -> None:
    """Change contrast, in place, by the curve ``x + c x (1 - x)``, which keeps black and white and the order of tones.

    A contrast that is only scaled would be undone by `normalise`.
    """
    bend = (_centred(draw) * MAX_TONE_CURVE).view(-1, 1, 1, 1)
    images.mul_(torch.addcmul(1 + bend, images, -bend))


def _blur(images: Tensor, strength: Tensor) -> None:
    """Blend images, in place, with their 3 x 3 box blur."""
    # Sums of shifted images take a tenth of the time of F.avg_pool2d.
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]
    boxes = (rows[:, :, :-2] + rows[:, :, 1:-1]).add_(rows[:, :, 2:])
    images.lerp_(boxes.div_(9), (strength * MAX_BLUR).view(-1, 1, 1, 1))


def _add_noise(images: Tensor, strength: Tensor, place: Tensor) -> None:
    """Add white noise to images, in place, in proportion to their own contrast."""
    pixels = images[0].numel()
    pieces = _noise(images.device).unfold(0, pixels, 1)
    noise = pieces.index_select(0, (place * len(pieces)).long()).view(images.shape)
    scale = MAX_NOISE * strength * _deviations(images)
    images.addcmul_(noise, scale.view(-1, 1, 1, 1))


@cache
def _noise(device: torch.device) -> Tensor:
    """Return normal random numbers, of which each image gets a piece: drawing new ones would take half the time."""
    generator = torch.Generator().manual_seed(derived_seed("noise"))
    return torch.randn(_NOISE_VALUES, generator=generator).to(device)


def _deviations(images: Tensor) -> Tensor:
    """Return the standard deviation of each image, ``(N,)``; `torch.std` takes ten times as long."""
    tones = images.flatten(1)
    centred = tones - tones.mean(1, keepdim=True)
    deviations: Tensor = torch.linalg.vector_norm(centred, dim=1) / math.sqrt(tones.shape[1])
    return deviations


def _centred(draw: Tensor) -> Tensor:
    return draw * 2 - 1
