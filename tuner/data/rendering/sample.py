"""One sample: a label, how it is written, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.data.image_decoding import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX
from tuner.data.rendering.backgrounds import Picture, draw_background, plain
from tuner.data.rendering.degradations import degrade, finish, is_legible
from tuner.data.rendering.fonts import Font
from tuner.data.rendering.random_words import RandomWords
from tuner.data.rendering.text import Mask, rotate_mask, rotated_size, text_mask, text_size
from tuner.data.vocabulary import DIGITS, MAX_DIGITS

_SIZES_PX = ((22, 38), (20, 38), (18, 36), (16, 34), (14, 32), (12, 32), (15, 28), (15, 26))
"""Smallest and largest font size by label length: the longer, the smaller on average."""

_SMALLEST_SIZE_PX = 6
_LEAST_PITCH_PX = 9  # a digit and its gap: narrow fonts are drawn larger, since small strokes matter
_MARGIN_PX = 2
_LARGEST_SHIFT_PX = (18, 12)
_LARGEST_ROTATION = 50  # tenths of a degree
_AUGMENTED_PERCENT = 67
_LEAST_CONTRAST = 100
_ATTEMPTS = 8


@dataclass(frozen=True)
class Sample:
    """What the metadata tell about a picture.

    Attributes:
        label: 1 to 8 Khmer digits.
        font: Name of the font.
        font_size: Pixels per em.
        augmented: Whether the text is rotated and the picture may be blurred, noisy or pale.
        text_color: Red, green and blue, 0 to 255.
        text_position: Left and top, in pixels, of the text's inked rectangle before it is rotated.
    """

    label: str
    font: str
    font_size: int
    augmented: bool
    text_color: tuple[int, int, int]
    text_position: tuple[int, int]


def render_sample(fonts: Sequence[Font], seed: int, split: int, number: int) -> tuple[Sample, npt.NDArray[np.uint8]]:
    """Return sample `number` of split number `split` and its RGB picture `(64, 128, 3)`.

    The result depends on the arguments alone, so any process can make any sample.
    """
    words = RandomWords(seed, split, number)
    length = 1 + words.below(MAX_DIGITS)
    label = "".join(words.pick(DIGITS) for _ in range(length))
    font = words.pick(fonts)
    augmented = words.chance(_AUGMENTED_PERCENT)
    tenth_degrees = words.between(-_LARGEST_ROTATION, _LARGEST_ROTATION) if augmented else 0
    size_px, gap_px = _fitting_size(font, label, words.between(*_SIZES_PX[length - 1]), words.between(1, 3))
    mask = text_mask(font, size_px, label, gap_px)
    turned = rotate_mask(mask, tenth_degrees)
    left, top = _place(words, turned)
    picture, level = _legible_picture(words, turned, left, top, size_px, augmented)
    position = (left + (turned.shape[1] - mask.shape[1]) // 2, top + (turned.shape[0] - mask.shape[0]) // 2)
    return Sample(label, font.name, size_px, augmented, (level, level, level), position), picture


def _legible_picture(
    words: RandomWords, mask: Mask, left: int, top: int, size_px: int, augmented: bool
) -> tuple[npt.NDArray[np.uint8], int]:
    """Return a picture with the text of `mask` that a person can read, and the grey level of the text."""
    for attempt in range(_ATTEMPTS + 1):
        picture = draw_background(words) if attempt < _ATTEMPTS else plain(words)
        level = _text_level(words, picture)
        _write(picture, mask, left, top, level)
        if augmented and attempt < _ATTEMPTS:
            picture = degrade(words, picture, size_px)
        finished = finish(picture)
        if is_legible(finished[top : top + mask.shape[0], left : left + mask.shape[1]], mask, size_px):
            break
    return finished, level


def _fitting_size(font: Font, label: str, wanted_px: int, looseness: int) -> tuple[int, int]:
    """Return the largest size up to `wanted_px` at which `label` fits, and the gap between digits.

    A narrow font may be drawn larger than wanted, up to the least width a digit. Room for the steepest rotation is
    kept for every label: the size must not tell whether it is rotated.
    """
    wide_enough = _LEAST_PITCH_PX * len(label)
    while wanted_px < _SIZES_PX[0][1] and _text_size(font, label, wanted_px, looseness)[1] < wide_enough:
        wanted_px += 1
    for size_px in range(wanted_px, _SMALLEST_SIZE_PX, -1):
        height, width = rotated_size(*_text_size(font, label, size_px, looseness), _LARGEST_ROTATION)
        if height <= IMAGE_HEIGHT_PX - 2 * _MARGIN_PX and width <= IMAGE_WIDTH_PX - 2 * _MARGIN_PX:
            return size_px, _gap(size_px, looseness)
    return _SMALLEST_SIZE_PX, 1


def _text_size(font: Font, label: str, size_px: int, looseness: int) -> tuple[int, int]:
    return text_size(font, size_px, label, _gap(size_px, looseness))


def _gap(size_px: int, looseness: int) -> int:
    return max(1, size_px * looseness >> 4)


def _place(words: RandomWords, mask: Mask) -> tuple[int, int]:
    """Return left and top of `mask` in the picture: off the middle, but wholly inside."""
    height, width = mask.shape
    room_x, room_y = (IMAGE_WIDTH_PX - width) // 2, (IMAGE_HEIGHT_PX - height) // 2
    shift_x = min(_LARGEST_SHIFT_PX[0], max(room_x - _MARGIN_PX, 0))
    shift_y = min(_LARGEST_SHIFT_PX[1], max(room_y - _MARGIN_PX, 0))
    return room_x + words.between(-shift_x, shift_x), room_y + words.between(-shift_y, shift_y)


def _text_level(words: RandomWords, picture: Picture) -> int:
    """Return a level from black to grey that stands off the average of `picture`."""
    column_sums = picture.sum(axis=0, dtype=np.int16)  # 64 rows of up to 255 fit
    average = int(column_sums.sum(dtype=np.int64)) // picture.size
    return words.between(0, max(0, min(110, average - _LEAST_CONTRAST)))


def _write(picture: Picture, mask: Mask, left: int, top: int, level: int) -> None:
    height, width = mask.shape
    part = picture[top : top + height, left : left + width]
    ink = ((mask.astype(np.int32) * 257 + 255) >> 8)[:, :, None]  # 0 .. 255 to 0 .. 256
    part += ((level - part) * ink >> 8).astype(np.int16)
