"""Backgrounds: what a label is written on. All of them are lighter than any text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tuner.data.image_decoding import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX
from tuner.data.rendering.random_words import RandomWords

Picture = npt.NDArray[np.int16]
"""An RGB picture in the making, `(height, width, 3)`; values may leave 0 to 255 until it is finished."""

Color = tuple[int, int, int]
Background = Callable[[RandomWords], Picture]


def paper_color(words: RandomWords, darkest: int = 170) -> Color:
    """Return a light colour: grey of at least `darkest`, with a tint on one picture in two."""
    level = words.between(darkest, 255)
    if words.chance(50):
        return level, level, level
    return level - words.below(40), level - words.below(40), level - words.below(40)


def plain(words: RandomWords) -> Picture:
    """Return one colour."""
    return _filled(paper_color(words))


def gradient(words: RandomWords) -> Picture:
    """Return a change from one colour to another: across, down, or along a diagonal."""
    first, second = paper_color(words), paper_color(words)
    across = np.arange(IMAGE_WIDTH_PX, dtype=np.int32) * words.between(0, 4)
    down = np.arange(IMAGE_HEIGHT_PX, dtype=np.int32)[:, None] * words.between(0, 8)
    way = across + down if words.chance(50) else across + down[::-1]
    share = (way * 128 // max(int(way.max()), 1)).astype(np.int16)
    picture = np.empty((IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, 3), np.int16)
    for channel, (start, end) in enumerate(zip(first, second, strict=True)):
        picture[:, :, channel] = start + ((end - start) * share >> 7)
    return picture


def lined(words: RandomWords) -> Picture:
    """Return ruled paper: lines across, or on one picture in five, down."""
    picture = _filled(paper_color(words, darkest=185))
    _rule(words, picture if words.chance(80) else picture.transpose(1, 0, 2))
    return picture


def grid(words: RandomWords) -> Picture:
    """Return squared paper."""
    picture = _filled(paper_color(words, darkest=185))
    color, spacing = _line_color(words), words.between(5, 16)
    _rule(words, picture, color, spacing)
    _rule(words, picture.transpose(1, 0, 2), color, spacing)
    return picture


def noisy(words: RandomWords) -> Picture:
    """Return heavy grain, grey or coloured, with blotches and dark and light specks on some pictures."""
    picture = gradient(words) if words.chance(30) else plain(words)
    if words.chance(50):
        picture += blotches(words, words.between(15, 50))
    picture += grain(words, words.between(40, 95))
    if words.chance(40):
        _speckle(words, picture)
    return limit(picture, 60)


BACKGROUNDS: tuple[tuple[int, Background], ...] = (
    (15, plain),
    (20, gradient),
    (18, lined),
    (17, grid),
    (30, noisy),
)
"""Percent of the pictures, and the kind of background."""


def draw_background(words: RandomWords) -> Picture:
    """Return a background of a kind chosen by the shares in `BACKGROUNDS`."""
    kinds = [draw for percent, draw in BACKGROUNDS for _ in range(percent)]
    return words.pick(kinds)(words)


def grain(words: RandomWords, amplitude: int) -> Picture:
    """Return noise per pixel, in colour or grey, within `amplitude` of 0 and denser towards 0.

    Its standard deviation is 0.43 of `amplitude`.
    """
    channels = 3 if words.chance(50) else 1
    shape = (IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, channels)
    # one byte split into two dice: their sum is denser in the middle, as grain is
    dice = words.block(*shape)
    centred = ((dice & 15) + (dice >> 4)).astype(np.int16) - 15
    noise = centred * np.int16(amplitude) // np.int16(15)
    return np.broadcast_to(noise, (IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, 3))


def blotches(words: RandomWords, depth: int) -> Picture:
    """Return soft stains, up to `depth` dark and some 16 pixels wide."""
    cell = 16
    knots = words.block(IMAGE_HEIGHT_PX // cell + 1, IMAGE_WIDTH_PX // cell + 1).astype(np.int32)
    share = np.arange(cell, dtype=np.int32)
    rows = knots[:-1, None, :] * (cell - share[:, None]) + knots[1:, None, :] * share[:, None]
    rows = rows.reshape(IMAGE_HEIGHT_PX, -1)
    smooth = rows[:, :-1, None] * (cell - share) + rows[:, 1:, None] * share
    stains = np.right_shift(smooth.reshape(IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, 1) * depth, 16)
    return np.broadcast_to(-stains.astype(np.int16), (IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, 3))


def limit(picture: Picture, low: int = 0) -> Picture:
    """Cut the values of `picture` to `low` .. 255, in place, and return it."""
    np.maximum(picture, np.int16(low), out=picture)
    return np.minimum(picture, np.int16(255), out=picture)


def _speckle(words: RandomWords, picture: Picture) -> None:
    dice = words.block(IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX)
    rate = words.between(2, 6)  # of 256 pixels
    picture[dice < rate] = words.between(60, 110)
    picture[dice >= 256 - rate] = 255


def _filled(color: Color) -> Picture:
    row = np.array(color * IMAGE_WIDTH_PX, np.int16)
    return np.repeat(row[None], IMAGE_HEIGHT_PX, axis=0).reshape(IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, 3)


def _line_color(words: RandomWords) -> Color:
    level = words.between(125, 175)
    if words.chance(40):
        return level, level, level
    return words.pick(((level - 20, level, 225), (225, level, level - 10), (level - 15, 200, level)))


def _rule(words: RandomWords, picture: Picture, color: Color | None = None, spacing: int = 0) -> None:
    """Draw lines on the rows of `picture`, in place; without a colour and spacing, these are chosen."""
    spacing = spacing or words.between(6, 18)
    thickness = 2 if spacing > 8 and words.chance(25) else 1
    start = words.below(spacing)
    line = color or _line_color(words)
    for offset in range(thickness):
        picture[start + offset :: spacing] = line
