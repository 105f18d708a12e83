"""Fonts and the bitmaps of their characters."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
from fontTools.ttLib import TTFont
from fontTools.ttLib.tables.DefaultTable import DefaultTable
from fontTools.unicodedata import script
from PIL import ImageFont

from tuner.data.vocabulary import is_right_to_left

PINNED_DESIGN = "Noto Sans Khmer"

_PINNED_PACKAGE = "fontpkg_noto_sans_khmer"
_PINNED_FILE = "files/NotoSansKhmer[wdth,wght].ttf"
# Weight 400 at width 100 is the font's default, the only instance that FreeType 2.13 and 2.14 render differently.
_PINNED_WEIGHTS = (350, 410, 500, 600, 700)
_PINNED_WIDTHS = (65, 77, 88, 99)
_PINNED_HEAVY = ((800, 88), (800, 99))  # in narrower instances, strokes merge at small sizes

# TrueType program "push 0, pop", repeated: it has no effect, but its presence switches off FreeType's auto-hinter.
_IDLE_PROGRAM = b"\xb0\x00\x21" * 4

# Left-to-right scripts whose letters are joined, most of them by a line above.
_JOINED_SCRIPTS = frozenset("Beng Deva Dogr Guru Kthi Mahj Modi Mong Nand Newa Phag Shrd Sidd Sylo Takr Tirh".split())


@dataclass(frozen=True)
class Font:
    """A font file, or one instance of the pinned variable font.

    Attributes:
        name: The font's name in the metadata.
        path: The font file; empty for the pinned font.
        index: Number of the font in a collection file.
        axes: Weight (100 to 900) and width (62.5 to 100) of the pinned font; empty for other fonts.
        design: The font's family without words for weight, width and slant.
    """

    name: str
    path: str = ""
    index: int = 0
    axes: tuple[int, ...] = ()
    design: str = PINNED_DESIGN


@dataclass(frozen=True)
class Glyph:
    """The bitmap of a character or of a shaped label, cropped to its ink; one pixel without ink if it has none.

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
def shaping_direction(characters: tuple[str, ...]) -> str | None:
    """Return None if labels can be rendered character by character, else ``ltr`` or ``rtl``.

    Combining marks, and letters of joined or right-to-left scripts, change or move their neighbours. Labels with them
    are shaped: each is rendered as one text in this direction, which needs libraqm.
    """
    if is_right_to_left(characters):
        return "rtl"
    shaped = any(len(text) > 1 or is_mark(text) or script(text) in _JOINED_SCRIPTS for text in characters)
    return "ltr" if shaped else None


def is_mark(character: str) -> bool:
    """Return whether a character is a combining mark without a base."""
    return unicodedata.category(character[0]).startswith("M")


def label_glyphs(font: Font, size_px: int, label: Sequence[str], characters: tuple[str, ...]) -> list[Glyph]:
    """Render a label of these characters at `size_px` pixels per em: a glyph for each character, or one if shaped."""
    if direction := shaping_direction(characters):
        return [*render_glyphs(font, size_px, ("".join(label),), direction).values()]
    glyphs = render_glyphs(font, size_px, characters, None)
    return [glyphs[character] for character in label]


@lru_cache(maxsize=2048)  # all sizes of sixty fonts
def render_glyphs(font: Font, size_px: int, texts: tuple[str, ...], direction: str | None) -> dict[str, Glyph]:
    """Render each text with FreeType, shaped if there is a direction.

    They are rendered together, because opening a font takes as long as rendering a few characters.
    """
    face = _freetype_font(font, size_px, ImageFont.Layout.RAQM if direction else ImageFont.Layout.BASIC)
    return {text: _glyph(face, text, direction) for text in texts}


def _glyph(face: ImageFont.FreeTypeFont, text: str, direction: str | None) -> Glyph:
    mask, (_, top) = face.getmask2(text, mode="L", direction=direction)
    width, height = mask.size
    coverage = np.frombuffer(bytes(mask), np.uint8).reshape(height, width)
    rows = np.flatnonzero(coverage.any(axis=1))
    columns = np.flatnonzero(coverage.any(axis=0))
    if not rows.size:
        return Glyph(np.zeros((1, 1), np.uint8), top=int(top), bottom=int(top) + 1, width=1)
    inked = coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
    first = int(top + rows[0])
    return Glyph(inked, top=first, bottom=first + inked.shape[0], width=inked.shape[1])


def _freetype_font(font: Font, size_px: int, layout: ImageFont.Layout) -> ImageFont.FreeTypeFont:
    if not font.axes:
        return ImageFont.truetype(font.path, size_px, index=font.index, layout_engine=layout)
    face = ImageFont.truetype(io.BytesIO(_unhinted_pinned_font()), size_px, layout_engine=layout)
    face.set_variation_by_axes(list(font.axes))
    return face


@cache
def _unhinted_pinned_font() -> bytes:
    """Return the pinned font with a font program that has no effect.

    The font has no hints, so FreeType hints it automatically, and version 2.14 does this differently than earlier
    versions. A font program switches automatic hinting off; FreeType 2.13.2 to 2.14.3 then render identical bitmaps.
    """
    program = DefaultTable("fpgm")
    program.data = _IDLE_PROGRAM
    content = io.BytesIO()
    with TTFont(pinned_font_file(), lazy=True, recalcTimestamp=False) as font:
        font["fpgm"] = program
        font.save(content)
    return content.getvalue()
