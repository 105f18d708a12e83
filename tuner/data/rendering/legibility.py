"""Can a person still read it? Measured on the finished picture, so that no mix of losses slips through."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_LEAST_CONTRAST = 64
_NOISE_TIMES_SIZE = 144


def is_legible(part: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], size_px: int) -> bool:
    """Return whether the text of `mask` `(height, width)` stands out in `part` `(height, width, 3)`.

    Its ink must be darker than the paper between and inside the digits by 64 of 255 levels, and by 144 /
    `size_px` times the mean deviation of that paper: the smaller the text, the fewer pixels its strokes
    have against noise.
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
