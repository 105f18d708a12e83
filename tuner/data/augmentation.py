"""Data augmentation: random distortion of whole batches of training images, on their device.

Shapes: N images, one grey channel, height H, width W.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.seeds import derived_seed

# Chosen so that distorted images stay readable: the digits of an eight-digit label are 8 pixels wide.
MAX_ROTATION = math.radians(2.5)
MAX_SHEAR = 0.06
ZOOM = (0.97, 1.12)  # of the view: mostly wider, so that labels that fill the image are not cut
MIN_SHIFT = 0.03  # share of half the width, of half the height
MAX_TONE_CURVE = 0.6
MAX_BLUR = 0.4  # weight of the blurred image
MAX_NOISE = 0.08  # in standard deviations of the image

# Affine maps for test-time augmentation (TTA): taller and wider; shifted by 1.3 pixels; taller and slanted.
_TTA_MAPS = (
    ((0.97, 0.0, 0.0), (0.0, 0.9, 0.0)),
    ((1.0, 0.0, 0.02), (0.0, 1.0, 0.0)),
    ((1.0, -0.054, 0.0), (0.0, 0.9, 0.0)),
)

_NOISE_VALUES = 1 << 20


@dataclass(frozen=True)
class Distortions:
    """The random distortion parameters of N images.

    Attributes:
        affine_maps: Affine maps ``(N, 2, 3)`` from output to input coordinates, both -1 to 1 across the image.
        tone_curves: The coefficient of the tone curve, ``(N,)``.
        blur_weights: The weight of the blurred image, ``(N,)``.
        noise_levels: Noise in standard deviations of the image, ``(N,)``.
        noise_offsets: Offset in the stored noise for a batch that starts with this image, ``(N,)``, 0 to 1; on the CPU.
    """

    affine_maps: Tensor
    tone_curves: Tensor
    blur_weights: Tensor
    noise_levels: Tensor
    noise_offsets: Tensor

    @classmethod
    def random(cls, count: int, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Distortions:
        """Return random distortions of `count` images; one call for a whole epoch takes almost no time.

        Args:
            count: N.
            size: H and W.
            generator: The source of all random numbers: a CPU generator, so that they are the same on every device.
            device: The device of the images.
        """
        uniform = torch.rand((10, count), generator=generator)
        noise_offsets = uniform[9]
        uniform = uniform.to(device)
        curves, blurs, noises = _signed(uniform[6]) * MAX_TONE_CURVE, uniform[7] * MAX_BLUR, uniform[8] * MAX_NOISE
        return cls(_affine_maps(uniform, size), curves, blurs, noises, noise_offsets)

    def __getitem__(self, images: slice) -> Distortions:
        fields = (self.affine_maps, self.tone_curves, self.blur_weights, self.noise_levels, self.noise_offsets)
        return Distortions(*(values[images] for values in fields))


def augment(images: Tensor, distortions: Distortions) -> Tensor:
    """Return distorted copies of float images ``(N, 1, H, W)``, 0 to 1.

    All get an affine map and a tone curve, every third a blur, every second noise. Batches are shuffled, so this is as
    random as choosing each image with a probability of one third or one half, and much cheaper.
    """
    images = _warp(images, distortions.affine_maps)
    _apply_tone_curves(images, distortions.tone_curves)
    _blur(images[::3], distortions.blur_weights[::3])
    _add_noise(images[::2], distortions.noise_levels[::2], float(distortions.noise_offsets[0]))
    return images


def distorted_copies(images: Tensor) -> Iterator[Tensor]:
    """Yield slightly distorted copies of images ``(N, 1, H, W)`` for TTA, each with one distortion for all images."""
    for affine_map in _TTA_MAPS:
        yield _warp(images, torch.tensor(affine_map, device=images.device).expand(len(images), 2, 3))


def normalise(images: Tensor) -> Tensor:
    """Scale each image ``(N, 1, H, W)`` to mean 0 and standard deviation 1, so that ink and paper tones cancel out."""
    return F.group_norm(images, 1, eps=1e-10)


def _affine_maps(uniform: Tensor, size: Sequence[int]) -> Tensor:
    """Return ``(N, 2, 3)`` maps from output to input coordinates for uniform numbers ``(6 or more, N)``, 0 to 1."""
    angle, shear = _signed(uniform[0]) * MAX_ROTATION, _signed(uniform[3]) * MAX_SHEAR
    zoom_x, zoom_y = ZOOM[0] + uniform[1:3] * (ZOOM[1] - ZOOM[0])
    # Limited to the margin that the wider view adds.
    shift_x, shift_y = (
        _signed(share) * (zoom - 1).clamp_min(MIN_SHIFT) for share, zoom in ((uniform[4], zoom_x), (uniform[5], zoom_y))
    )
    aspect = size[0] / size[1]  # angles and shears are relative to pixels, coordinates to half the width and height
    row_x = torch.stack([angle.cos() * zoom_x, (shear - angle.sin()) * zoom_y * aspect, shift_x], dim=1)
    row_y = torch.stack([angle.sin() * zoom_x / aspect, angle.cos() * zoom_y, shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def _warp(images: Tensor, maps: Tensor) -> Tensor:
    return F.grid_sample(images, _grid(maps, images), padding_mode="border", align_corners=False)


def _grid(maps: Tensor, images: Tensor) -> Tensor:
    """Return the sampling grid ``(N, H, W, 2)`` of `F.affine_grid`, in a twentieth of its time.

    x and y are separate in memory, which makes `F.grid_sample` faster too.
    """
    height, width = images.shape[2:]
    across, down = (_pixel_centres(size, images.device) for size in (width, height))
    from_x = maps[:, :, 0, None, None] * across
    from_y = maps[:, :, 1, None, None] * down[:, None] + maps[:, :, 2, None, None]
    return (from_x + from_y).permute(0, 2, 3, 1)


@cache
def _pixel_centres(size: int, device: torch.device) -> Tensor:
    """Return the coordinates of the `size` pixels of a row or column; -1 and 1 are the edges of the image."""
    return (torch.arange(size, device=device) * 2 + 1) / size - 1


def _apply_tone_curves(images: Tensor, coefficients: Tensor) -> None:
    """Map tones, in place, by the curve ``x + c x (1 - x)``, which keeps black, white and the order of tones.

    `normalise` would undo a linear change of contrast.
    """
    images.lerp_(images.square(), -coefficients.view(-1, 1, 1, 1))


def _blur(images: Tensor, weights: Tensor) -> None:
    """Blend images, in place, with their 3 x 3 box blur; the outermost pixels stay as they are."""
    # Sums of shifted images take a tenth of the time of F.avg_pool2d.
    rows = (images[:, :, :-2] + images[:, :, 1:-1]).add_(images[:, :, 2:])
    boxes = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    images[:, :, 1:-1, 1:-1].lerp_(boxes.div_(9), weights.view(-1, 1, 1, 1))


def _add_noise(images: Tensor, levels: Tensor, offset: float) -> None:
    """Add white noise to images, in place, in proportion to their own contrast.

    Args:
        images: ``(N, 1, H, W)``.
        levels: Standard deviation of the noise, in standard deviations of the image, ``(N,)``.
        offset: Offset in the stored noise, 0 to 1.
    """
    values, pixels = _stored_noise(images.device), images[0].numel()
    # Views at different offsets, without a copy: they overlap, but no two images get the same noise at a pixel.
    span = (len(values) - pixels) // 2
    noise = values[int(offset * span) :].unfold(0, pixels, span // len(images))[: len(images)]
    images.addcmul_(noise.view(images.shape), (levels * _deviations(images)).view(-1, 1, 1, 1))


@cache
def _stored_noise(device: torch.device) -> Tensor:
    """Return normal random numbers that all batches reuse: new ones would take half of the augmentation time."""
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
