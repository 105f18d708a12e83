"""Finding the fonts of a generated dataset: the pinned font, and on request installed fonts or fonts in a folder."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import ImageFont

from search_spaces.diagnostics.plural import listed
from search_spaces.errors import ConfigurationError
from tuner.data.rendering.fonts import Font, Glyph, pinned_font_file, pinned_fonts, render_glyphs, shaping_direction
from tuner.data.vocabulary import KHMER_DIGITS, Vocabulary, code_point_text

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
