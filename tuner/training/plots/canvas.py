"""A white sheet to draw on.

Pillow rather than matplotlib: these pictures are drawn again and again while a trial runs, and matplotlib takes half a
second to load and another third for what is drawn here in some hundredths.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tuner.data.rendering.fonts import pinned_font_file

Point = tuple[float, float]
Color = str | tuple[int, int, int]

INK, FAINT, GRID = "#1e293b", "#64748b", "#e2e8f0"
BLUE, ORANGE, GREEN, RED = "#2563eb", "#d97706", "#16a34a", "#dc2626"
# Everything is drawn so many times larger and then made smaller, which smooths its edges.
_SCALE = 2


class Canvas:
    """A white sheet; places and sizes are in pixels of the finished picture, from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        """Take a sheet of a size."""
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), "white")
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[Point], color: Color, width: float = 1.0) -> None:
        """Draw a line through points; nothing through fewer than two."""
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, fill=color, width=round(width * _SCALE), joint="curve")

    def dashed(self, start: Point, end: Point, color: Color) -> None:
        """Draw a thin dashed line, straight across or straight down."""
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
        for begin in np.arange(0.0, length, 6.0):
            first, last = begin / length, min(1.0, (begin + 3.0) / length)
            self.line([_between(start, end, first), _between(start, end, last)], color)

    def dot(self, at: Point, color: Color, radius: float = 2.5) -> None:
        """Draw a dot."""
        self._draw.circle((at[0] * _SCALE, at[1] * _SCALE), radius * _SCALE, fill=color)

    def box(self, corner: Point, size: Point, fill: Color | None = None, outline: Color | None = None) -> None:
        """Draw a rectangle, given its upper left corner, width and height."""
        first = (corner[0] * _SCALE, corner[1] * _SCALE)
        last = ((corner[0] + size[0]) * _SCALE - 1, (corner[1] + size[1]) * _SCALE - 1)
        self._draw.rectangle((first, last), fill=fill, outline=outline, width=_SCALE)

    def text(self, at: Point, text: str, size: int, color: Color = INK, anchor: str = "lm") -> None:
        """Write a line.

        Args:
            at: Where its anchor is.
            text: Khmer digits or ASCII.
            size: Of the letters, in pixels.
            color: Of the letters.
            anchor: Pillow's: ``l``, ``m`` or ``r`` for left to right, then ``t``, ``m`` or ``b`` for top to bottom.
        """
        place = (at[0] * _SCALE, at[1] * _SCALE)
        self._draw.text(place, text, font=_font(size * _SCALE), fill=color, anchor=anchor)

    def rotated_text(self, at: Point, text: str, size: int, color: Color = INK) -> None:
        """Write a line upwards; `at` is its middle."""
        font = _font(size * _SCALE)
        width, height = round(font.getlength(text)), round(size * _SCALE * 1.5)
        label = Image.new("L", (width, height), 0)
        ImageDraw.Draw(label).text((0, height / 2), text, font=font, fill=255, anchor="lm")
        label = label.transpose(Image.Transpose.ROTATE_90)
        corner = (round(at[0] * _SCALE - height / 2), round(at[1] * _SCALE - width / 2))
        self._image.paste(Image.new("RGB", label.size, color), corner, label)

    def grey(self, corner: Point, pixels: npt.NDArray[np.uint8]) -> None:
        """Put in a grey image ``(height, width)``, pixel by pixel."""
        image = Image.fromarray(pixels).resize(
            (pixels.shape[1] * _SCALE, pixels.shape[0] * _SCALE), Image.Resampling.BOX
        )
        self._image.paste(image.convert("RGB"), (round(corner[0] * _SCALE), round(corner[1] * _SCALE)))

    def png(self) -> bytes:
        """Return the picture."""
        buffer = io.BytesIO()
        # Flat colours need no more than a palette, a third of the bytes.
        self._image.reduce(_SCALE).quantize(128, method=Image.Quantize.FASTOCTREE).save(buffer, "PNG")
        return buffer.getvalue()


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(pinned_font_file()), size, layout_engine=ImageFont.Layout.BASIC)


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
