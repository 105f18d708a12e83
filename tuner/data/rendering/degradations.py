"""Degradations of a rendered image: blur, noise, reduced contrast; and the check that the text is legible."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.rendering.backgrounds import Canvas, clip, grain
from tuner.data.rendering.stable_random import StableRandom

_SMALL_TEXT_PX = 18
_LARGE_TEXT_PX = 22

# Limits of legibility. They apply to the final image, since several mild degradations can add up.
_MIN_CONTRAST = 64
_NOISE_TIMES_SIZE = 144
MIN_INK = 40  # a pixel of a mask with less ink is paper


def degrade(rng: StableRandom, canvas: Canvas, size_px: int) -> Canvas:
    """Return `canvas` with up to three degradations, each mild enough for text of `size_px` to stay legible.

    Contrast is reduced last because this weakens text and noise equally and so keeps legible text legible.
    """
    # Small text is not blurred: its strokes are one pixel apart and would merge.
    if size_px >= _SMALL_TEXT_PX and rng.chance(35):
        canvas = blur(canvas)
        if size_px >= _LARGE_TEXT_PX and rng.chance(50):
            canvas = blur(canvas)
    if rng.chance(35):
        canvas = canvas + grain(rng, rng.between(10, min(25 + size_px, 60)))
    if rng.chance(35):
        canvas = reduce_contrast(canvas, percent=rng.between(45, 90), lift=rng.below(101))
    return canvas


def blur(canvas: Canvas) -> Canvas:
    """Return `canvas` blurred by the kernel 1 2 1, horizontally and vertically."""
    return _blur_down(_blur_down(canvas).transpose(1, 0, 2)).transpose(1, 0, 2) >> 4


def reduce_contrast(canvas: Canvas, percent: int, lift: int) -> Canvas:
    """Return `canvas` with `percent` of its contrast; a `lift` of 0 darkens it, 100 lightens it."""
    floor = 255 * (100 - percent) * lift // 10_000
    # in 64ths, so that the product fits into 16 bits
    return (canvas * np.int16(percent * 64 // 100) >> 6) + np.int16(floor)


def to_image(canvas: Canvas) -> npt.NDArray[np.uint8]:
    """Clip `canvas` to 0 .. 255, in place, and return it as bytes."""
    return clip(canvas).astype(np.uint8)


def is_legible(part: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], size_px: int) -> bool:
    """Return whether the text of `mask` `(height, width)` is legible in `part` `(height, width, 3)`.

    The ink must be darker than the paper around it by at least 64 grey levels, and by at least 144 / `size_px` times
    the mean absolute deviation of the paper. The factor depends on the size because noise hides small text first.
    """
    contrast, noise = contrast_and_noise(part, mask)
    return contrast >= _MIN_CONTRAST and contrast * size_px >= _NOISE_TIMES_SIZE * noise


def contrast_and_noise(part: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Return how much darker the ink is than the paper around it, and the mean absolute deviation of the paper.

    Both are in grey levels, 0 to 255; the first one is negative if the ink is lighter than the paper.
    """
    red, green, blue = part.astype(np.int16).transpose(2, 0, 1)
    light = red + green + blue
    paper = light[mask < MIN_INK]
    ink = light[mask > int(mask.max()) * 2 // 3]
    paper_level = int(paper.sum(dtype=np.int64)) // paper.size
    ink_level = int(ink.sum(dtype=np.int64)) // ink.size
    noise = int(np.abs(paper - paper_level).sum(dtype=np.int64)) // paper.size
    return (paper_level - ink_level) // 3, noise // 3


def _blur_down(canvas: Canvas) -> Canvas:
    """Return 4 times `canvas` blurred along its first axis, with the edge pixels repeated beyond the edge."""
    total = canvas * np.int16(2)
    total[1:] += canvas[:-1]
    total[0] += canvas[0]
    total[:-1] += canvas[1:]
    total[-1] += canvas[-1]
    return total
