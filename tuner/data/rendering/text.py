"""Rendering a label as a mask of ink, and rotating the mask, in integer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from tuner.data.rendering.fonts import Glyph

_BORDER = 2  # empty pixels around a mask, so that interpolation outside of it gives 0

Mask = npt.NDArray[np.uint8]


def text_size(glyphs: Sequence[Glyph], gap_px: int) -> tuple[int, int]:
    """Return the height and width, in pixels, of the ink of `glyphs` in a line with gaps of `gap_px` between them."""
    height = max(glyph.bottom for glyph in glyphs) - min(glyph.top for glyph in glyphs)
    return height, sum(glyph.width for glyph in glyphs) + gap_px * (len(glyphs) - 1)


def text_mask(glyphs: Sequence[Glyph], gap_px: int) -> Mask:
    """Return the mask of ink `(height, width)` of `glyphs` in a line, 0 none to 255 full, cropped to its bounding box.

    Values are scaled to a maximum of 255, because thin strokes of small text would otherwise be too pale.
    """
    mask = np.zeros(text_size(glyphs, gap_px), np.uint8)
    top = min(glyph.top for glyph in glyphs)
    left = 0
    for glyph in glyphs:
        mask[glyph.top - top : glyph.bottom - top, left : left + glyph.width] = glyph.coverage
        left += glyph.width + gap_px
    return (mask.astype(np.uint16) * 255 // int(mask.max())).astype(np.uint8)


def rotated_size(height: int, width: int, tenth_degrees: int) -> tuple[int, int]:
    """Return the height and width of the bounding box of a rotated rectangle."""
    sine, cosine = _sine_cosine(abs(tenth_degrees))
    return ((height * cosine + width * sine) >> 16) + 2, ((width * cosine + height * sine) >> 16) + 2


def rotate_mask(mask: Mask, tenth_degrees: int) -> Mask:
    """Return `mask` rotated about its centre, with the size given by `rotated_size`.

    Each pixel is interpolated bilinearly from four pixels of `mask`, in 16-bit fixed point.
    """
    if tenth_degrees == 0:
        return mask
    sine, cosine = _sine_cosine(tenth_degrees)
    height, width = mask.shape
    out_height, out_width = rotated_size(height, width, tenth_degrees)
    across = np.arange(1 - out_width, out_width, 2, dtype=np.int32)  # twice the distance from the centre
    down = np.arange(1 - out_height, out_height, 2, dtype=np.int32)[:, None]
    source_x = ((across * cosine + down * sine + ((width - 1) << 16)) >> 1) + (_BORDER << 16)
    source_y = ((down * cosine - across * sine + ((height - 1) << 16)) >> 1) + (_BORDER << 16)
    padded = np.zeros((height + 2 * _BORDER, width + 2 * _BORDER), np.int32)
    padded[_BORDER:-_BORDER, _BORDER:-_BORDER] = mask
    stride = width + 2 * _BORDER
    row = np.clip(source_y >> 16, 0, height + _BORDER)
    column = np.clip(source_x >> 16, 0, width + _BORDER)
    pixels, index = padded.ravel(), row * stride + column
    part_x, part_y = (source_x >> 8) & 255, (source_y >> 8) & 255
    upper = pixels[index] * (256 - part_x) + pixels[index + 1] * part_x
    lower = pixels[index + stride] * (256 - part_x) + pixels[index + stride + 1] * part_x
    mixed: Mask = np.right_shift(upper * (256 - part_y) + lower * part_y, 16).astype(np.uint8)
    return mixed


@cache
def _sine_cosine(tenth_degrees: int) -> tuple[int, int]:
    # Rounded to 16 bits, since the last bits of math.sin differ between machines.
    radians = math.radians(tenth_degrees / 10)
    return round(math.sin(radians) * 65536), round(math.cos(radians) * 65536)
