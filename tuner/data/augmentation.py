"""Data augmentation: random distortions of whole batches of images, on the device of the images.

Shapes: N images, one grey channel, height H, width W.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.seeds import derived_seed

# Chosen so that distorted images stay readable: the characters of a label of eight are 8 pixels wide.
MAX_ROTATION = math.radians(2.5)
MAX_SHEAR = 0.35  # more than most italic fonts; half of the images get less than an eighth of it
ZOOM = (0.97, 1.12)  # above 1, the text shrinks: mostly so, because labels can fill the image
MAX_BEND_PX = 1.5  # of each displacement; the sum of two moves a pixel horizontally, and of two vertically
MIN_SHIFT = 0.03  # smallest limit of a shift, in units of half the width or height
MAX_TONE_CURVE = 0.6
MAX_BLUR = 0.4  # weight of the blurred copy
MAX_NOISE = 0.08  # as a multiple of the image's standard deviation

# Affine matrices for test-time augmentation (TTA): taller and wider; shifted by 1.3 pixels; taller and sheared.
TTA_MATRICES = (
    ((0.97, 0.0, 0.0), (0.0, 0.9, 0.0)),
    ((1.0, 0.0, 0.02), (0.0, 1.0, 0.0)),
    ((1.0, -0.054, 0.0), (0.0, 0.9, 0.0)),
)

_BEND_KNOTS = 5
_NOISE_VALUES = 1 << 20


@dataclass(frozen=True)
class Distortions:
    """The random distortion parameters of N images.

    Attributes:
        affine_matrices: Affine matrices ``(N, 2, 3)`` from output to input coordinates, as for `F.affine_grid`.
        bends: Displacements at K equally spaced knots, in units of half the width or height, ``(N, 2, 2, K)``: of x and
            y from left to right, then of x and y from top to bottom.
        tone_curves: The coefficient c of each tone curve ``x + c x (1 - x)``, ``(N,)``.
        blur_weights: The weight of each image's blurred copy in the result, 0 to `MAX_BLUR`, ``(N,)``.
        noise_levels: Standard deviation of the noise, as a multiple of the image's standard deviation, ``(N,)``.
        noise_offsets: Random numbers, 0 to 1, on the CPU, ``(N,)``. The number of the first image of a batch selects
            the part of the stored noise that the batch gets.
    """

    affine_matrices: Tensor
    bends: Tensor
    tone_curves: Tensor
    blur_weights: Tensor
    noise_levels: Tensor
    noise_offsets: Tensor

    @classmethod
    def random(cls, count: int, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Distortions:
        """Return random distortions of N images; a single call for all images of an epoch takes almost no time.

        Args:
            count: The number of images N.
            size: The height H and width W of the images.
            generator: A CPU generator, so that the distortions are the same on every device.
            device: The device of the images.
        """
        uniform = torch.rand((10, count), generator=generator)
        knots = torch.rand((count, 2, 2, _BEND_KNOTS), generator=generator).to(device)
        strengths = torch.rand((count, 1, 1, 1), generator=generator).to(device)
        noise_offsets = uniform[9]
        uniform = uniform.to(device)
        curves, blurs, noises = _signed(uniform[6]) * MAX_TONE_CURVE, uniform[7] * MAX_BLUR, uniform[8] * MAX_NOISE
        bends = _signed(knots) * strengths * MAX_BEND_PX * torch.tensor([[2 / size[1]], [2 / size[0]]], device=device)
        return cls(_affine_matrices(uniform, size), bends, curves, blurs, noises, noise_offsets)

    def __getitem__(self, images: slice) -> Distortions:
        return Distortions(*(getattr(self, field.name)[images] for field in fields(self)))


def augment(images: Tensor, distortions: Distortions) -> Tensor:
    """Return distorted copies of float images ``(N, 1, H, W)``, 0 to 1.

    Every image gets an affine transformation, bends and a tone curve; every second image also gets noise, and every
    third one blur. Selecting images by position is cheap, and random enough because batches are shuffled.
    """
    images = _warp(images, distortions.affine_matrices, distortions.bends)
    _apply_tone_curves(images, distortions.tone_curves)
    _blur(images[::3], distortions.blur_weights[::3])
    _add_noise(images[::2], distortions.noise_levels[::2], float(distortions.noise_offsets[0]))
    return images


def distorted_copies(images: Tensor) -> Iterator[Tensor]:
    """Yield slightly distorted copies of a batch ``(N, 1, H, W)`` for TTA; a copy has one distortion for all images."""
    for matrix in TTA_MATRICES:
        yield _warp(images, torch.tensor(matrix, device=images.device).expand(len(images), 2, 3))


def normalise(images: Tensor) -> Tensor:
    """Scale each image ``(N, 1, H, W)`` to mean 0 and standard deviation 1, which removes brightness and contrast."""
    return F.group_norm(images, 1, eps=1e-10)


def _affine_matrices(uniform: Tensor, size: Sequence[int]) -> Tensor:
    """Convert uniform random numbers ``(6 or more, N)``, 0 to 1, to affine matrices ``(N, 2, 3)``."""
    angle, shear = _signed(uniform[0]) * MAX_ROTATION, _signed(uniform[3]) ** 3 * MAX_SHEAR
    zoom_x, zoom_y = ZOOM[0] + uniform[1:3] * (ZOOM[1] - ZOOM[0])
    # A shift is limited to the margin that zooming out adds, but never to less than MIN_SHIFT.
    shift_x, shift_y = (
        _signed(number) * (zoom - 1).clamp_min(MIN_SHIFT)
        for number, zoom in ((uniform[4], zoom_x), (uniform[5], zoom_y))
    )
    aspect = size[0] / size[1]  # angles and shears apply to pixels, coordinates are -1 to 1 in both directions
    row_x = torch.stack([angle.cos() * zoom_x, (shear - angle.sin()) * zoom_y * aspect, shift_x], dim=1)
    row_y = torch.stack([angle.sin() * zoom_x / aspect, angle.cos() * zoom_y, shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def _warp(images: Tensor, matrices: Tensor, bends: Tensor | None = None) -> Tensor:
    return F.grid_sample(images, _grid(matrices, images, bends), padding_mode="border", align_corners=False)


def _grid(matrices: Tensor, images: Tensor, bends: Tensor | None = None) -> Tensor:
    """Return the same sampling grid ``(N, H, W, 2)`` as `F.affine_grid`, but 20 times as fast, displaced by the bends.

    The bends are an elastic distortion. Those from left to right make characters narrower, wider, higher or lower than
    their neighbours; those from top to bottom change the proportions of each character. Each depends on one coordinate
    only, so they take almost no time.

    `F.grid_sample` is faster too, because the x and y coordinates of an image are stored in separate blocks.
    """
    height, width = images.shape[2:]
    across, down = (_pixel_centres(size, images.device) for size in (width, height))
    from_x = matrices[:, :, :1] * across
    from_y = matrices[:, :, 1:2] * down + matrices[:, :, 2:]
    if bends is not None:
        from_x += bends[:, 0] @ _between_knots(width, images.device)
        from_y += bends[:, 1] @ _between_knots(height, images.device)
    return (from_x[:, :, None] + from_y[..., None]).permute(0, 2, 3, 1)


@cache
def _between_knots(size: int, device: torch.device) -> Tensor:
    """Return the weights ``(K, size)`` of K knots at each pixel centre; between two knots, they follow a cosine."""
    at = (torch.arange(size, device=device) + 0.5) / size * (_BEND_KNOTS - 1)
    distance = (at - torch.arange(_BEND_KNOTS, device=device)[:, None]).abs().clamp_max(1)
    return 0.5 + 0.5 * torch.cos(math.pi * distance)


@cache
def _pixel_centres(size: int, device: torch.device) -> Tensor:
    """Return the coordinates of `size` pixel centres in a row or column; -1 and 1 are the edges of the image."""
    return (torch.arange(size, device=device) * 2 + 1) / size - 1


def _apply_tone_curves(images: Tensor, coefficients: Tensor) -> None:
    """Apply the tone curve ``x + c x (1 - x)`` in place, with the coefficient c of each image.

    The curve keeps black, white and the order of tones. A linear curve would be useless, because `normalise` undoes it.
    """
    images.lerp_(images.square(), -coefficients.view(-1, 1, 1, 1))


def _blur(images: Tensor, weights: Tensor) -> None:
    """Blend each image with its 3 x 3 box blur, in place; border pixels do not change."""
    # Adding shifted images is ten times as fast as F.avg_pool2d.
    rows = (images[:, :, :-2] + images[:, :, 1:-1]).add_(images[:, :, 2:])
    boxes = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    images[:, :, 1:-1, 1:-1].lerp_(boxes.div_(9), weights.view(-1, 1, 1, 1))


def _add_noise(images: Tensor, levels: Tensor, offset: float) -> None:
    """Add white noise to each image, in place, in proportion to the contrast of the image.

    Args:
        images: ``(N, 1, H, W)``.
        levels: Standard deviation of the noise, as a multiple of the image's standard deviation, ``(N,)``.
        offset: Random number, 0 to 1, that selects a part of the stored noise.
    """
    values, pixels = _stored_noise(images.device), images[0].numel()
    # Overlapping views instead of copies; their offsets differ, so no two images have the same noise at a pixel.
    span = (len(values) - pixels) // 2
    noise = values[int(offset * span) :].unfold(0, pixels, span // len(images))[: len(images)]
    images.addcmul_(noise.view(images.shape), (levels * _deviations(images)).view(-1, 1, 1, 1))


@cache
def _stored_noise(device: torch.device) -> Tensor:
    """Return normal random numbers that all batches reuse; new numbers would take half of the augmentation time."""
    generator = torch.Generator().manual_seed(derived_seed("noise"))
    return torch.randn(_NOISE_VALUES, generator=generator).to(device)


def _deviations(images: Tensor) -> Tensor:
    """Return the standard deviation of each image, ``(N,)``, estimated from every fourth row."""
    tones = images[:, 0, ::4].flatten(1)
    centred = tones - tones.mean(1, keepdim=True)
    # `torch.std` takes ten times as long.
    deviations: Tensor = torch.linalg.vector_norm(centred, dim=1) / math.sqrt(tones.shape[1])
    return deviations


def _signed(uniform: Tensor) -> Tensor:
    return uniform * 2 - 1
