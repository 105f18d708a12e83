"""Rendering one sample of a dataset: a label and its image, in integer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from tuner.data.generation.canvas import MIN_INK, Canvas, degrade, is_legible, plain, random_background, to_image
from tuner.data.generation.fonts import Font, Glyph, is_mark, label_glyphs
from tuner.data.generation.stable_random import StableRandom
from tuner.data.images import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX
from tuner.data.vocabulary import MAX_LABEL_LENGTH, Vocabulary

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


_SIZES_PX = [(22, 38), (20, 38), (18, 36), (16, 34), (14, 32), (12, 32), (15, 28), (15, 26)]
_SIZES_PX += [(120 // length, 208 // length) for length in range(9, MAX_LABEL_LENGTH + 1)]
"""Smallest and largest font size for labels of 1 to 24 characters; longer labels have smaller sizes on average."""

_MIN_SIZE_PX = 6
_MIN_PITCH_PX = 9  # minimum for a character and its gap: narrow fonts are enlarged, so that thin strokes stay visible
_MARGIN_PX = 2
_MAX_SHIFT_PX = (18, 12)
_MAX_ROTATION = 50  # tenths of a degree
_AUGMENTED_PERCENT = 67
_MIN_CONTRAST = 100
_ATTEMPTS = 8


@dataclass(frozen=True)
class Sample:
    """The metadata of one image.

    Attributes:
        label: The text, in the order in which it is read.
        font: Name of the font.
        font_size: Pixels per em.
        augmented: Whether the text is rotated and the image may be blurred, noisy or of low contrast.
        text_color: Red, green and blue, 0 to 255.
        text_position: Left and top edge, in pixels, of the ink's bounding box before the rotation.
    """

    label: str
    font: str
    font_size: int
    augmented: bool
    text_color: tuple[int, int, int]
    text_position: tuple[int, int]


def render_sample(
    fonts: Sequence[Font], vocabulary: Vocabulary, seed: int, split: int, number: int
) -> tuple[Sample, npt.NDArray[np.uint8]]:
    """Render sample `number` of split number `split`; return its metadata and its RGB image `(64, 128, 3)`.

    The result only depends on the arguments, so any process can render any sample. All designs are equally frequent.
    """
    rng = StableRandom(seed, split, number)
    label = _random_label(rng, vocabulary)
    designs = list(dict.fromkeys(font.design for font in fonts))
    design = rng.choice(designs) if len(designs) > 1 else designs[0]
    font = rng.choice([font for font in fonts if font.design == design])
    augmented = rng.chance(_AUGMENTED_PERCENT)
    tenth_degrees = rng.between(-_MAX_ROTATION, _MAX_ROTATION) if augmented else 0
    glyphs = partial(label_glyphs, font, label=label, characters=vocabulary.characters)
    size_px, gap_px = _fitting_size(glyphs, len(label), rng.between(*_SIZES_PX[len(label) - 1]), rng.between(1, 3))
    mask = _squeezed(text_mask(glyphs(size_px), gap_px))
    rotated = rotate_mask(mask, tenth_degrees)
    left, top = _random_position(rng, rotated)
    image, level = _legible_image(rng, rotated, left, top, size_px, augmented)
    position = (left + (rotated.shape[1] - mask.shape[1]) // 2, top + (rotated.shape[0] - mask.shape[0]) // 2)
    return Sample("".join(label), font.name, size_px, augmented, (level, level, level), position), image


def _random_label(rng: StableRandom, vocabulary: Vocabulary) -> list[str]:
    """Return random characters, with combining marks only after bases, whose text is read as the same characters."""
    characters = vocabulary.characters
    bases = [character for character in characters if not is_mark(character)] or characters
    length, label = 1 + rng.below(vocabulary.max_length), list[str]()
    while not label or vocabulary.split("".join(label)) != label:
        label = []
        for _ in range(length):
            label.append(rng.choice(characters if label and not is_mark(label[-1]) else bases))
    return label


def _squeezed(mask: Mask) -> Mask:
    """Return `mask`, narrowed if even the smallest size does not fit; its thin strokes remain."""
    height, width = mask.shape
    if _fits(height, width):
        return mask
    height = min(height, IMAGE_HEIGHT_PX // 2)
    while not _fits(height, width):
        width -= 1
    return np.maximum.reduceat(mask[:height], np.arange(width) * mask.shape[1] // width, axis=1)


def _fits(height: int, width: int) -> bool:
    height, width = rotated_size(height, width, _MAX_ROTATION)
    return height <= IMAGE_HEIGHT_PX - 2 * _MARGIN_PX and width <= IMAGE_WIDTH_PX - 2 * _MARGIN_PX


def _legible_image(
    rng: StableRandom, mask: Mask, left: int, top: int, size_px: int, augmented: bool
) -> tuple[npt.NDArray[np.uint8], int]:
    """Render legible text from `mask`; return the image and the grey level of the text.

    If all random attempts are illegible, the result has a plain background and no degradations.
    """
    if mask.min() >= MIN_INK:  # the paper, with which ink is compared, is outside of characters such as a dash
        mask, left, top = np.pad(mask, 1), left - 1, top - 1
    for attempt in range(_ATTEMPTS + 1):
        canvas = random_background(rng) if attempt < _ATTEMPTS else plain(rng)
        level = _text_level(rng, canvas)
        _blend_text(canvas, mask, left, top, level)
        if augmented and attempt < _ATTEMPTS:
            canvas = degrade(rng, canvas, size_px)
        image = to_image(canvas)
        if is_legible(image[top : top + mask.shape[0], left : left + mask.shape[1]], mask, size_px):
            break
    return image, level


def _fitting_size(
    glyphs: Callable[[int], Sequence[Glyph]], length: int, requested_px: int, spacing: int
) -> tuple[int, int]:
    """Return the largest font size up to `requested_px` at which a label fits, and the gap between its characters.

    For a narrow font, `requested_px` is first increased until the label has the minimum width. Every label must fit
    even with the maximum rotation, because its size would otherwise reveal whether it is rotated.
    """
    min_width, largest_px = _MIN_PITCH_PX * length, _SIZES_PX[0][1]
    while requested_px < largest_px and text_size(glyphs(requested_px), _gap(requested_px, spacing))[1] < min_width:
        requested_px += 1
    for size_px in range(requested_px, _MIN_SIZE_PX, -1):
        if _fits(*text_size(glyphs(size_px), _gap(size_px, spacing))):
            return size_px, _gap(size_px, spacing)
    return _MIN_SIZE_PX, 1


def _gap(size_px: int, spacing: int) -> int:
    return max(1, size_px * spacing >> 4)


def _random_position(rng: StableRandom, mask: Mask) -> tuple[int, int]:
    """Return the left and top offset of `mask` in the image: randomly shifted from the centre, but inside."""
    height, width = mask.shape
    centred_x, centred_y = (IMAGE_WIDTH_PX - width) // 2, (IMAGE_HEIGHT_PX - height) // 2
    shift_x = min(_MAX_SHIFT_PX[0], max(centred_x - _MARGIN_PX, 0))
    shift_y = min(_MAX_SHIFT_PX[1], max(centred_y - _MARGIN_PX, 0))
    return centred_x + rng.between(-shift_x, shift_x), centred_y + rng.between(-shift_y, shift_y)


def _text_level(rng: StableRandom, canvas: Canvas) -> int:
    """Return a random grey level for the text, darker than the average of `canvas`."""
    column_sums = canvas.sum(axis=0, dtype=np.int16)  # 64 rows of up to 255 fit into 16 bits
    average = int(column_sums.sum(dtype=np.int64)) // canvas.size
    return rng.between(0, max(0, min(110, average - _MIN_CONTRAST)))


def _blend_text(canvas: Canvas, mask: Mask, left: int, top: int, level: int) -> None:
    height, width = mask.shape
    part = canvas[top : top + height, left : left + width]
    ink = ((mask.astype(np.int32) * 257 + 255) >> 8)[:, :, None]  # 0 .. 255 to 0 .. 256
    part += ((level - part) * ink >> 8).astype(np.int16)
