"""Random distortion of whole batches of training images, on the device that holds them.

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

# Chosen so that what is drawn stays readable: an eight-digit label has 8 pixels a digit.
MAX_ROTATION = math.radians(2.5)
MAX_SHEAR = 0.06
ZOOM = (0.97, 1.12)  # of the view: mostly wider, so that labels which fill the image are not cut
LEAST_SHIFT = 0.03  # share of half the width, of half the height
MAX_TONE_CURVE = 0.6
MAX_BLUR = 0.4  # weight of the blurred image
MAX_NOISE = 0.08  # in standard deviations of the image

# Affine maps of the distorted copies: taller and wider; moved by 1.3 pixels; taller and slanted.
_COPY_MAPS = (
    ((0.97, 0.0, 0.0), (0.0, 0.9, 0.0)),
    ((1.0, 0.0, 0.02), (0.0, 1.0, 0.0)),
    ((1.0, -0.054, 0.0), (0.0, 0.9, 0.0)),
)

_NOISE_VALUES = 1 << 20


@dataclass(frozen=True)
class Distortions:
    """How images are to be distorted, each in its own way.

    Attributes:
        maps: Affine maps ``(N, 2, 3)`` from output to input coordinates, both -1 to 1 across the image.
        bends: The curve of the tones, ``(N,)``.
        blurs: The weight of the blurred image, ``(N,)``.
        noises: Noise in standard deviations of the image, ``(N,)``.
        places: Where the noise of a batch that begins with this image is taken from, ``(N,)``, 0 to 1; on the CPU.
    """

    maps: Tensor
    bends: Tensor
    blurs: Tensor
    noises: Tensor
    places: Tensor

    @classmethod
    def draw(cls, count: int, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Distortions:
        """Draw those of `count` images of a height and width; for a whole epoch at once they cost next to nothing.

        Args:
            count: N.
            size: H and W.
            generator: Where every random number comes from: a CPU generator, so that they are the same on each device.
            device: Where the images are.
        """
        draws = torch.rand((10, count), generator=generator)
        places = draws[9]
        draws = draws.to(device)
        bends, blurs, noises = _centred(draws[6]) * MAX_TONE_CURVE, draws[7] * MAX_BLUR, draws[8] * MAX_NOISE
        return cls(_affine_maps(draws, size), bends, blurs, noises, places)

    def __getitem__(self, images: slice) -> Distortions:
        parts = (self.maps, self.bends, self.blurs, self.noises, self.places)
        return Distortions(*(part[images] for part in parts))


def augment(images: Tensor, distortions: Distortions) -> Tensor:
    """Distort float images ``(N, 1, H, W)``, 0 to 1: affine map and contrast; blur and noise for some.

    Batches are shuffled, so it is as random, and much cheaper, to blur every third image and to add noise to every
    second than to toss a coin for each.
    """
    images = _warp(images, distortions.maps)
    _bend_tones(images, distortions.bends)
    _blur(images[::3], distortions.blurs[::3])
    _add_noise(images[::2], distortions.noises[::2], float(distortions.places[0]))
    return images


def distorted_copies(images: Tensor) -> Iterator[Tensor]:
    """Yield slightly distorted copies of images ``(N, 1, H, W)``; all are distorted alike."""
    for affine_map in _COPY_MAPS:
        yield _warp(images, torch.tensor(affine_map, device=images.device).expand(len(images), 2, 3))


def normalise(images: Tensor) -> Tensor:
    """Give every image ``(N, 1, H, W)`` mean 0 and standard deviation 1, so that ink and paper tones do not matter."""
    return F.group_norm(images, 1, eps=1e-10)


def _affine_maps(draws: Tensor, size: Sequence[int]) -> Tensor:
    """Return ``(N, 2, 3)`` maps from output to input coordinates for draws ``(6 or more, N)``, 0 to 1."""
    turn, shear = _centred(draws[0]) * MAX_ROTATION, _centred(draws[3]) * MAX_SHEAR
    zoom_x, zoom_y = ZOOM[0] + draws[1:3] * (ZOOM[1] - ZOOM[0])
    # As far as the wider view leaves room.
    shift_x, shift_y = (
        _centred(draw) * (zoom - 1).clamp_min(LEAST_SHIFT) for draw, zoom in ((draws[4], zoom_x), (draws[5], zoom_y))
    )
    aspect = size[0] / size[1]  # turns and shears are meant in pixels
    row_x = torch.stack([turn.cos() * zoom_x, (shear - turn.sin()) * zoom_y * aspect, shift_x], dim=1)
    row_y = torch.stack([turn.sin() * zoom_x / aspect, turn.cos() * zoom_y, shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def _warp(images: Tensor, maps: Tensor) -> Tensor:
    return F.grid_sample(images, _grid(maps, images), padding_mode="border", align_corners=False)


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


def _bend_tones(images: Tensor, bends: Tensor) -> None:
    """Change contrast, in place, by the curve ``x + c x (1 - x)``, which keeps black and white and the order of tones.

    A contrast that is only scaled would be undone by `normalise`.
    """
    images.lerp_(images.square(), -bends.view(-1, 1, 1, 1))


def _blur(images: Tensor, weights: Tensor) -> None:
    """Blend images, in place, with their 3 x 3 box blur; the outermost pixels have none and stay."""
    # Sums of shifted images take a tenth of the time of F.avg_pool2d.
    rows = (images[:, :, :-2] + images[:, :, 1:-1]).add_(images[:, :, 2:])
    boxes = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    images[:, :, 1:-1, 1:-1].lerp_(boxes.div_(9), weights.view(-1, 1, 1, 1))


def _add_noise(images: Tensor, strengths: Tensor, place: float) -> None:
    """Add white noise to images, in place, in proportion to their own contrast.

    Args:
        images: ``(N, 1, H, W)``.
        strengths: Its standard deviation in those of the image, ``(N,)``.
        place: From where in the noise at hand, 0 to 1.
    """
    values, pixels = _noise(images.device), images[0].numel()
    # One place and then another for each image: pieces may overlap, but never pixel for pixel. Nothing is copied.
    room = (len(values) - pixels) // 2
    pieces = values[int(place * room) :].unfold(0, pixels, room // len(images))[: len(images)]
    images.addcmul_(pieces.view(images.shape), (strengths * _deviations(images)).view(-1, 1, 1, 1))


@cache
def _noise(device: torch.device) -> Tensor:
    """Return normal random numbers, of which each image gets a piece: drawing new ones would take half the time."""
    generator = torch.Generator().manual_seed(derived_seed("noise"))
    return torch.randn(_NOISE_VALUES, generator=generator).to(device)


def _deviations(images: Tensor) -> Tensor:
    """Return the standard deviation of each image, ``(N,)``, told from every fourth row."""
    tones = images[:, 0, ::4].flatten(1)
    centred = tones - tones.mean(1, keepdim=True)
    # `torch.std` takes ten times as long.
    deviations: Tensor = torch.linalg.vector_norm(centred, dim=1) / math.sqrt(tones.shape[1])
    return deviations


def _centred(draw: Tensor) -> Tensor:
    return draw * 2 - 1
