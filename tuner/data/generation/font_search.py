"""Finding the fonts of a generated dataset: the pinned font, and on request installed fonts or fonts in a folder."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import ImageFont

from search_spaces.errors import ConfigurationError
from tuner.data.rendering.fonts import Font, pinned_font_file, pinned_fonts
from tuner.data.vocabulary import DIGITS

_FONT_SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
_PROBE_SIZE_PX = 48
_UNASSIGNED_CHARACTER = "\U0010ffff"  # every font renders it as its missing-character glyph
_MAX_FONTS_PER_FILE = 64


def find_fonts(choice: str, folder: Path | None) -> list[Font]:
    """Return the fonts of a dataset, in an order that depends only on the fonts.

    Args:
        choice: `pinned`, or `system` to add every installed font that has all ten digits.
        folder: A folder that is searched with its subfolders; its fonts with all ten digits are added.

    Raises:
        ConfigurationError: `choice` has another value, or `folder` does not exist or has no font with all ten digits.
    """
    if choice not in ("pinned", "system"):
        raise ConfigurationError(f"fonts: found {choice!r}; expected 'pinned' or 'system'; use one of these")
    added = _fonts_with_digits(_font_files(system_font_folders())) if choice == "system" else []
    if folder is not None:
        added += _fonts_of_folder(folder)
    return pinned_fonts() + _without_duplicates(added)


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


def _fonts_with_digits(paths: Iterable[Path]) -> list[Font]:
    """Return the fonts in these files that have all ten Khmer digits; other files are skipped."""
    return [font for path in paths for font in _fonts_of_file(path)]


def _fonts_of_folder(folder: Path) -> list[Font]:
    if not folder.is_dir():
        raise ConfigurationError(
            f"--fonts-dir: found {str(folder)!r}; expected a folder with font files; correct the path"
        )
    paths = list(_font_files([folder]))
    fonts = _fonts_with_digits(paths)
    if not fonts:
        names = ", ".join(path.name for path in paths[:5]) or "no font file"
        raise ConfigurationError(
            f"--fonts-dir: found no font with all ten Khmer digits in {str(folder)!r} (it contains {names}); "
            "put .ttf or .otf files of Khmer fonts there, for example those in Debian's package fonts-khmeros"
        )
    return fonts


def _font_files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for parent, _, names in os.walk(folder):
            paths = (Path(parent, name) for name in sorted(names) if Path(name).suffix.lower() in _FONT_SUFFIXES)
            yield from (path for path in paths if path.is_file())  # FreeType would block if it opened a pipe


def _fonts_of_file(path: Path) -> Iterator[Font]:
    for index in range(_MAX_FONTS_PER_FILE):
        try:
            face = ImageFont.truetype(str(path), _PROBE_SIZE_PX, index=index, layout_engine=ImageFont.Layout.BASIC)
            is_complete = _has_all_digits(face)
        except OSError:  # not a font, or past the last font of the file
            return
        if is_complete:
            yield Font(name=_font_name(face, path), path=str(path.resolve()), index=index)


def _has_all_digits(face: ImageFont.FreeTypeFont) -> bool:
    """Return whether the bitmaps of all digits differ, and none is empty or the missing-character glyph."""
    bitmaps = {bytes(face.getmask(digit, mode="L")) for digit in DIGITS}
    missing = bytes(face.getmask(_UNASSIGNED_CHARACTER, mode="L"))
    return len(bitmaps) == len(DIGITS) and missing not in bitmaps and all(map(any, bitmaps))


def _font_name(face: ImageFont.FreeTypeFont, path: Path) -> str:
    family, style = face.getname()
    name = (family or path.stem).replace(" ", "")
    return name if style in (None, "", "Regular") else f"{name}-{style.replace(' ', '')}"


def _without_duplicates(fonts: Iterable[Font]) -> list[Font]:
    """Return `fonts` without duplicates, in order of name and content; names already in use get a digest as suffix."""
    by_content = {(font_digest(font), font.index): font for font in fonts}
    used_names = {font.name for font in pinned_fonts()}
    result = []
    for (digest, index), font in sorted(by_content.items(), key=lambda item: (item[1].name, item[0])):
        name = f"{font.name}-{digest[:6]}" if font.name in used_names else font.name
        used_names.add(name)
        result.append(Font(name=name, path=font.path, index=index))
    return result
