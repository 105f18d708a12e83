"""Fonts: the pinned one, installed ones and those in a folder; and the bitmaps of their characters."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
from fontTools.ttLib import TTFont
from fontTools.ttLib.tables.DefaultTable import DefaultTable
from fontTools.unicodedata import script
from PIL import ImageFont

from search_spaces.diagnostics.wording import listed
from search_spaces.errors import ConfigurationError
from tuner.data.vocabulary import KHMER_DIGITS, Vocabulary, code_point_text, is_right_to_left

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


_FONT_SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
_PROBE_SIZE_PX = 48
_NONCHARACTER = 0x10FFFF  # only fallback fonts, which show a placeholder for every character, have it
_MAX_FONTS_PER_FILE = 64
_MAX_LISTED = 3
_STYLE_AT_END = re.compile(
    r"([\s-]+(extra|ultra|semi|demi)?[\s-]*(thin|light|book|regular|medium|bold|black|heavy|italic|oblique|condensed"
    r"|narrow|expanded|ui))+$",
    re.IGNORECASE,
)
logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of harmless errors in fonts


def find_fonts(choice: str, folder: Path | None, characters: tuple[str, ...] = tuple(KHMER_DIGITS)) -> list[Font]:
    """Return the fonts of a dataset, in an order that depends only on the fonts.

    Args:
        choice: `pinned`, or `system` to add every installed font; fonts that lack a character are left out.
        folder: A folder that is searched with its subfolders; its fonts with all characters are added. Of fonts that
            render all characters alike, one is added.
        characters: The characters of the labels.

    Raises:
        ConfigurationError: `choice` has another value, or `folder` does not exist, or no font, in `folder` or at all,
            has all characters.
    """
    if choice not in ("pinned", "system"):
        raise ConfigurationError(f"fonts: found {choice!r}; expected 'pinned' or 'system'; use one of these")
    if folder is not None and not folder.is_dir():
        raise ConfigurationError(
            f"--fonts-dir: found {str(folder)!r}; expected a folder with font files; correct the path"
        )
    defects: list[str] = []
    pinned = pinned_fonts()
    if defect := _defect(pinned[0], characters):
        pinned, defects = [], [f"{pinned[0].design} {defect}"]
    in_folder = _complete_fonts([folder] if folder else [], characters, defects)
    installed = _complete_fonts(system_font_folders() if choice == "system" else [], characters, defects)
    fonts = pinned + _without_duplicates(in_folder + installed, characters)
    if not fonts or (folder and not in_folder):
        where = f"--fonts-dir: found no font in {str(folder)!r}" if folder else "--characters: found no font"
        raise ConfigurationError(
            f"{where} with all of {Vocabulary(characters)} ({listed(defects, _MAX_LISTED) or 'it has no fonts'}); add "
            ".ttf or .otf files of fonts with these characters by --fonts-dir or --fonts system, or change --characters"
        )
    return fonts


def font_digest(font: Font) -> str:
    """Return the SHA-256 of the font's file."""
    path = Path(font.path) if font.path else pinned_font_file()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def system_font_folders() -> list[Path]:
    """Return the font folders of the operating system and the user."""
    home = Path.home()
    if sys.platform == "darwin":
        return [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    data_home = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    data_folders = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [
        home / ".fonts",
        data_home / "fonts",
        *(Path(data) / "fonts" for data in data_folders.split(":") if data),
    ]


def _complete_fonts(folders: Iterable[Path], characters: tuple[str, ...], defects: list[str]) -> list[Font]:
    """Return the fonts in these folders that have all characters; append the defects of the others to `defects`."""
    complete = []
    for font in (font for path in font_files(folders) for font in _fonts_of_file(path)):
        try:
            defect = _defect(font, characters)
        except OSError as error:  # FreeType cannot render a character
            defect = f"is damaged: {error}"
        if defect:
            defects.append(f"{font.name} {defect}")
        else:
            complete.append(font)
    return complete


def font_files(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the font files in these folders and their subfolders."""
    for folder in folders:
        for parent, _, names in os.walk(folder):
            paths = (Path(parent, name) for name in sorted(names) if Path(name).suffix.lower() in _FONT_SUFFIXES)
            yield from (path for path in paths if path.is_file())  # FreeType would block if it opened a pipe


@cache
def font_characters(path: Path, index: int = 0) -> frozenset[str]:
    """Return the characters of a font; none if it is damaged, or shows the same placeholder for every character."""
    try:
        with TTFont(path, fontNumber=index, lazy=True) as file:
            glyph_names = file.getBestCmap() or {}
    except Exception:  # fontTools raises errors of many types for damaged files
        return frozenset()
    return frozenset() if _NONCHARACTER in glyph_names else frozenset(map(chr, glyph_names))


def _fonts_of_file(path: Path) -> Iterator[Font]:
    for index in range(_MAX_FONTS_PER_FILE):
        try:
            face = ImageFont.truetype(str(path), _PROBE_SIZE_PX, index=index, layout_engine=ImageFont.Layout.BASIC)
        except OSError:  # not a font, or past the last font of the file
            return
        design = _STYLE_AT_END.sub("", face.getname()[0] or path.stem)
        yield Font(name=_font_name(face, path), path=str(path.resolve()), index=index, design=design)


def _defect(font: Font, characters: tuple[str, ...]) -> str | None:
    """Return which characters a font lacks, or shows empty or like others; None if it can render all labels."""
    known = font_characters(Path(font.path) if font.path else pinned_font_file(), font.index)
    visible = {text: [part for part in text if unicodedata.category(part) != "Cf"] for text in characters}
    if missing := [code_point_text(text) for text in characters if not known.issuperset(visible[text])]:
        return f"lacks {listed(missing, _MAX_LISTED)}"
    glyphs = _probe(font, characters)
    bitmaps = [(glyph.top, glyph.coverage.shape, glyph.coverage.tobytes()) for glyph in glyphs.values()]
    empty = [text for text in glyphs if not glyphs[text].coverage.any()]
    unclear = empty or [text for text, bitmap in zip(glyphs, bitmaps, strict=True) if bitmaps.count(bitmap) > 1]
    return f"shows {listed(unclear, _MAX_LISTED)} {'empty' if empty else 'alike'}" if unclear else None


def _probe(font: Font, characters: tuple[str, ...]) -> dict[str, Glyph]:
    return render_glyphs.__wrapped__(font, _PROBE_SIZE_PX, characters, shaping_direction(characters))


def _font_name(face: ImageFont.FreeTypeFont, path: Path) -> str:
    family, style = face.getname()
    name = (family or path.stem).replace(" ", "")
    return name if style in (None, "", "Regular") else f"{name}-{style.replace(' ', '')}"


def _without_duplicates(fonts: Iterable[Font], characters: tuple[str, ...]) -> list[Font]:
    """Return one of the fonts with the same bitmaps, by name and content; names in use get a digest as suffix."""
    by_bitmaps: dict[tuple[bytes, ...], Font] = {}
    for font in sorted(fonts, key=lambda font: (font.name, font_digest(font), font.index)):
        by_bitmaps.setdefault(tuple(glyph.coverage.tobytes() for glyph in _probe(font, characters).values()), font)
    used_names = {font.name for font in pinned_fonts()}
    result = []
    for font in by_bitmaps.values():
        name = f"{font.name}-{font_digest(font)[:6]}" if font.name in used_names else font.name
        used_names.add(name)
        result.append(replace(font, name=name))
    return result
