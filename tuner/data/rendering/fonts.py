"""Fonts and their digit bitmaps."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ImageFont

from tuner.data.vocabulary import DIGITS

_PINNED_PACKAGE = "fontpkg_noto_sans_khmer"
_PINNED_FILE = "files/NotoSansKhmer[wdth,wght].ttf"
# Weight 400 at width 100 is the font's default, the only instance that FreeType 2.13 and 2.14 render differently.
_PINNED_WEIGHTS = (350, 410, 500, 600, 700)
_PINNED_WIDTHS = (65, 77, 88, 99)
_PINNED_HEAVY = ((800, 88), (800, 99))  # in narrower instances, strokes merge at small sizes

# TrueType program "push 0, pop", repeated: it has no effect, but its presence switches off FreeType's auto-hinter.
_IDLE_PROGRAM = b"\xb0\x00\x21" * 4


@dataclass(frozen=True)
class Font:
    """A font file, or one instance of the pinned variable font.

    Attributes:
        name: The font's name in the metadata.
        path: The font file; empty for the pinned font.
        index: Number of the font in a collection file.
        axes: Weight (100 to 900) and width (62.5 to 100) of the pinned font; empty for other fonts.
    """

    name: str
    path: str = ""
    index: int = 0
    axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Glyph:
    """The bitmap of one digit, cropped to its ink.

    Attributes:
        coverage: Ink per pixel, 0 to 255, `(height, width)`.
        top: Row of the text line in which the bitmap starts.
        bottom: Row of the text line after the last row of the bitmap.
        width: Number of columns of the bitmap.
    """

    coverage: npt.NDArray[np.uint8]
    top: int
    bottom: int
    width: int


def pinned_fonts() -> list[Font]:
    """Return the instances of the pinned variable font, in a fixed order."""
    axes = [(weight, width) for weight in _PINNED_WEIGHTS for width in _PINNED_WIDTHS] + list(_PINNED_HEAVY)
    return [Font(name=f"NotoSansKhmer-wght{weight}-wdth{width}", axes=(weight, width)) for weight, width in axes]


def pinned_font_file() -> Path:
    """Return the file of the pinned font in its installed package."""
    return Path(str(resources.files(_PINNED_PACKAGE))) / _PINNED_FILE


@cache
def digit_glyphs(font: Font, size_px: int) -> dict[str, Glyph]:
    """Render the ten digits with FreeType at `size_px` pixels per em.

    They are rendered together, because opening a font takes as long as rendering a few digits.
    """
    face = _freetype_font(font, size_px)
    return {digit: _glyph(face, digit) for digit in DIGITS}


def _glyph(face: ImageFont.FreeTypeFont, digit: str) -> Glyph:
    mask, (_, top) = face.getmask2(digit, mode="L")
    width, height = mask.size
    coverage = np.frombuffer(bytes(mask), np.uint8).reshape(height, width)
    rows = np.flatnonzero(coverage.any(axis=1))
    columns = np.flatnonzero(coverage.any(axis=0))
    inked = coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    first = int(top + rows[0])
    return Glyph(inked, top=first, bottom=first + inked.shape[0], width=inked.shape[1])


def _freetype_font(font: Font, size_px: int) -> ImageFont.FreeTypeFont:
    basic = ImageFont.Layout.BASIC  # digits need no shaping, and not all machines have libraqm
    if not font.axes:
        return ImageFont.truetype(font.path, size_px, index=font.index, layout_engine=basic)
    face = ImageFont.truetype(io.BytesIO(_unhinted_pinned_font()), size_px, layout_engine=basic)
    face.set_variation_by_axes(list(font.axes))
    return face


@cache
def _unhinted_pinned_font() -> bytes:
    """Return the pinned font with a font program that has no effect.

    The font has no hints, so FreeType hints it automatically, and version 2.14 does this differently than earlier
    versions. A font program switches automatic hinting off; FreeType 2.13.2 to 2.14.3 then render identical bitmaps.
    """
    data = pinned_font_file().read_bytes()
    (count,) = struct.unpack_from(">H", data, 4)
    tables = {b"fpgm": _IDLE_PROGRAM}
    for number in range(count):
        tag, _, offset, length = struct.unpack_from(">4sIII", data, 12 + 16 * number)
        tables[tag] = data[offset : offset + length]
    return _font_file(data[:4], tables)


def _font_file(version: bytes, tables: dict[bytes, bytes]) -> bytes:
    count = len(tables)
    power = count.bit_length() - 1
    directory = [version, struct.pack(">HHHH", count, 16 << power, power, 16 * (count - (1 << power)))]
    bodies = []
    offset = 12 + 16 * count
    for tag, body in sorted(tables.items()):
        directory.append(struct.pack(">4sIII", tag, 0, offset, len(body)))  # FreeType ignores the checksums
        bodies.append(body + bytes(-len(body) % 4))
        offset += len(bodies[-1])
    return b"".join(directory + bodies)
