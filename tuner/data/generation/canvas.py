"""Images while they are rendered: random backgrounds lighter than the text, degradations, check of legibility."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tuner.data.generation.stable_random import StableRandom
from tuner.data.images import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX

Canvas = npt.NDArray[np.int16]
"""An RGB image while it is rendered, `(height, width, 3)`; values may be outside of 0 to 255 before `clip`."""

Color = tuple[int, int, int]
Background = Callable[[StableRandom], Canvas]


def paper_color(rng: StableRandom, darkest: int = 170) -> Color:
    """Return a random light colour: a grey level of at least `darkest`, tinted with a probability of 50 %."""
    level = rng.between(darkest, 255)
    if rng.chance(50):
        return level, level, level
    return level - rng.below(40), level - rng.below(40), level - rng.below(40)


def plain(rng: StableRandom) -> Canvas:
    """Return a background of a single colour."""
    return _filled(paper_color(rng))


def gradient(rng: StableRandom) -> Canvas:
    """Return a background with a horizontal, vertical or diagonal colour gradient."""
    first, second = paper_color(rng), paper_color(rng)
    across = np.arange(IMAGE_WIDTH_PX, dtype=np.int32) * rng.between(0, 4)
    down = np.arange(IMAGE_HEIGHT_PX, dtype=np.int32)[:, None] * rng.between(0, 8)
    distance = across + down if rng.chance(50) else across + down[::-1]
    weight = (distance * 128 // max(int(distance.max()), 1)).astype(np.int16)
    canvas = np.empty((IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, 3), np.int16)
    for channel, (start, end) in enumerate(zip(first, second, strict=True)):
        canvas[:, :, channel] = start + ((end - start) * weight >> 7)
    return canvas


def lined(rng: StableRandom) -> Canvas:
    """Return lined paper: with horizontal lines or, with a probability of 20 %, vertical ones."""
    canvas = _filled(paper_color(rng, darkest=185))
    _rule(rng, canvas if rng.chance(80) else canvas.transpose(1, 0, 2))
    return canvas


def grid(rng: StableRandom) -> Canvas:
    """Return graph paper: equally spaced horizontal and vertical lines."""
    canvas = _filled(paper_color(rng, darkest=185))
    color, spacing = _line_color(rng), rng.between(5, 16)
    _rule(rng, canvas, color, spacing)
    _rule(rng, canvas.transpose(1, 0, 2), color, spacing)
    return canvas


def noisy(rng: StableRandom) -> Canvas:
    """Return a background with strong grain, in some cases also with blotches or with dark and light specks."""
    canvas = gradient(rng) if rng.chance(30) else plain(rng)
    if rng.chance(50):
        canvas += blotches(rng, rng.between(15, 50))
    canvas += grain(rng, rng.between(40, 95))
    if rng.chance(40):
        _speckle(rng, canvas)
    return clip(canvas, 60)


BACKGROUNDS: tuple[tuple[int, Background], ...] = (
    (15, plain),
    (20, gradient),
    (18, lined),
    (17, grid),
    (30, noisy),
)
"""The percentage of images with each kind of background."""


def random_background(rng: StableRandom) -> Canvas:
    """Return a background of a random kind, with the percentages in `BACKGROUNDS`."""
    kinds = [background for percent, background in BACKGROUNDS for _ in range(percent)]
    return rng.choice(kinds)(rng)


def grain(rng: StableRandom, amplitude: int) -> Canvas:
    """Return grey or coloured noise from -`amplitude` to `amplitude`, with a triangular distribution, for each pixel.

    The standard deviation is 0.43 times the amplitude.
    """
    channels = 3 if rng.chance(50) else 1
    shape = (IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, channels)
    # Each byte gives two uniform numbers from 0 to 15; their sum has a triangular distribution.
    values = rng.byte_array(*shape)
    centred = ((values & 15) + (values >> 4)).astype(np.int16) - 15
    noise = centred * np.int16(amplitude) // np.int16(15)
    return np.broadcast_to(noise, (IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, 3))


def blotches(rng: StableRandom, depth: int) -> Canvas:
    """Return values from -`depth` to 0 that, added to a canvas, draw soft dark stains about 16 pixels wide."""
    cell = 16
    knots = rng.byte_array(IMAGE_HEIGHT_PX // cell + 1, IMAGE_WIDTH_PX // cell + 1).astype(np.int32)
    weight = np.arange(cell, dtype=np.int32)
    rows = knots[:-1, None, :] * (cell - weight[:, None]) + knots[1:, None, :] * weight[:, None]
    rows = rows.reshape(IMAGE_HEIGHT_PX, -1)
    smooth = rows[:, :-1, None] * (cell - weight) + rows[:, 1:, None] * weight
    stains = np.right_shift(smooth.reshape(IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, 1) * depth, 16)
    return np.broadcast_to(-stains.astype(np.int16), (IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, 3))


def clip(canvas: Canvas, low: int = 0) -> Canvas:
    """Clip the values of `canvas` to `low` .. 255, in place, and return it."""
    np.maximum(canvas, np.int16(low), out=canvas)
    return np.minimum(canvas, np.int16(255), out=canvas)


def _speckle(rng: StableRandom, canvas: Canvas) -> None:
    values = rng.byte_array(IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX)
    rate = rng.between(2, 6)  # per 256 pixels
    canvas[values < rate] = rng.between(60, 110)
    canvas[values >= 256 - rate] = 255


def _filled(color: Color) -> Canvas:
    row = np.array(color * IMAGE_WIDTH_PX, np.int16)
    return np.repeat(row[None], IMAGE_HEIGHT_PX, axis=0).reshape(IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, 3)


def _line_color(rng: StableRandom) -> Color:
    level = rng.between(125, 175)
    if rng.chance(40):
        return level, level, level
    return rng.choice(((level - 20, level, 225), (225, level, level - 10), (level - 15, 200, level)))


def _rule(rng: StableRandom, canvas: Canvas, color: Color | None = None, spacing: int = 0) -> None:
    """Draw lines on the rows of `canvas`, in place; colour and spacing are random unless given."""
    spacing = spacing or rng.between(6, 18)
    thickness = 2 if spacing > 8 and rng.chance(25) else 1
    start = rng.below(spacing)
    line = color or _line_color(rng)
    for offset in range(thickness):
        canvas[start + offset :: spacing] = line


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
