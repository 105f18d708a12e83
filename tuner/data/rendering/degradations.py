"""What happens to a picture after the text is on it: blur, lost contrast, noise; and whether it stays legible."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.rendering.backgrounds import Picture, grain, limit
from tuner.data.rendering.random_words import RandomWords

_SMALL_TEXT_PX = 18
_LARGE_TEXT_PX = 22

# Limits of legibility, measured on the finished picture, so that no mix of losses slips through.
_LEAST_CONTRAST = 64
_NOISE_TIMES_SIZE = 144


def degrade(words: RandomWords, picture: Picture, size_px: int) -> Picture:
    """Return `picture` after up to three losses; each is mild enough for text of `size_px` to stay readable.

    Contrast goes last: it weakens text and noise alike, so what could be read before can be read after.
    """
    # strokes a pixel apart would run together: small text stays sharp
    if size_px >= _SMALL_TEXT_PX and words.chance(35):
        picture = blur(picture)
        if size_px >= _LARGE_TEXT_PX and words.chance(50):
            picture = blur(picture)
    if words.chance(35):
        picture = picture + grain(words, words.between(10, min(25 + size_px, 60)))
    if words.chance(35):
        picture = lose_contrast(picture, percent=words.between(45, 90), lift=words.below(101))
    return picture


def blur(picture: Picture) -> Picture:
    """Return `picture` blurred by the kernel 1 2 1 across and down."""
    return _blur_down(_blur_down(picture).transpose(1, 0, 2)).transpose(1, 0, 2) >> 4


def lose_contrast(picture: Picture, percent: int, lift: int) -> Picture:
    """Return `picture` with `percent` of its contrast; `lift` 0 darkens it, 100 lightens it."""
    floor = 255 * (100 - percent) * lift // 10_000
    # in 64ths, since 16 bits must hold the product
    return (picture * np.int16(percent * 64 // 100) >> 6) + np.int16(floor)


def finish(picture: Picture) -> npt.NDArray[np.uint8]:
    """Return `picture` as bytes, cut to 0 .. 255."""
    return limit(picture).astype(np.uint8)


def is_legible(part: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], size_px: int) -> bool:
    """Return whether the text of `mask` `(height, width)` stands out in `part` `(height, width, 3)`.

    Its ink must be darker than the paper between and inside the digits by 64 of 255 levels, and by 144 / `size_px`
    times the mean deviation of that paper: the smaller the text, the fewer pixels its strokes have against noise.
    """
    contrast, noise = contrast_and_noise(part, mask)
    return contrast >= _LEAST_CONTRAST and contrast * size_px >= _NOISE_TIMES_SIZE * noise


def contrast_and_noise(part: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Return how much darker the ink is than the paper around it, and the mean deviation of that paper.

    Both in grey levels, 0 to 255; the contrast is negative if the ink is lighter.
    """
    red, green, blue = part.astype(np.int16).transpose(2, 0, 1)
    light = red + green + blue
    paper = light[mask < 40]
    ink = light[mask > int(mask.max()) * 2 // 3]
    paper_level = int(paper.sum(dtype=np.int64)) // paper.size
    ink_level = int(ink.sum(dtype=np.int64)) // ink.size
    noise = int(np.abs(paper - paper_level).sum(dtype=np.int64)) // paper.size
    return (paper_level - ink_level) // 3, noise // 3


def _blur_down(picture: Picture) -> Picture:
    """Return 4 times `picture` blurred along its first axis; the edge continues as it ends."""
    total = picture * np.int16(2)
    total[1:] += picture[:-1]
    total[0] += picture[0]
    total[:-1] += picture[1:]
    total[-1] += picture[-1]
    return total
