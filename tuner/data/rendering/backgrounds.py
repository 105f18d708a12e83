"""Random backgrounds, all of them lighter than the text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tuner.data.image_decoding import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX
from tuner.data.rendering.stable_random import StableRandom

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
