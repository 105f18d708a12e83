"""Text in plots: in any script that an available font has, with shaping if Pillow supports it."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

from tuner.data.generation.font_search import font_characters, font_files, system_font_folders
from tuner.data.rendering.fonts import pinned_font_file

_MAX_CODE_POINTS = 3


def draw_text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size_px: int, color: str, anchor: str = "lm"
) -> None:
    """Write a text on an image; if no font has all of its characters, write their code points."""
    visible = frozenset(character for character in text if unicodedata.category(character) != "Cf")
    font = None if text.isspace() else _font(visible, size_px)
    if font is None:
        text = " ".join(f"U+{ord(character):04X}" for character in text[:_MAX_CODE_POINTS])
        font = _opened(pinned_font_file(), size_px)
    draw.text(at, text, font=font, fill=color, anchor=anchor)


def _font(characters: frozenset[str], size_px: int) -> ImageFont.FreeTypeFont | None:
    """Return the first font that has all characters; None if there is none."""
    files = (file for file in _font_files() if characters <= font_characters(file))
    return next(filter(None, (_opened(file, size_px) for file in files)), None)


@cache
def _font_files() -> tuple[Path, ...]:
    """Return the pinned font, the fonts of matplotlib, and the installed fonts."""
    import matplotlib

    folders = [Path(matplotlib.get_data_path(), "fonts", "ttf"), *system_font_folders()]
    return pinned_font_file(), *font_files(folders)


@cache
def _opened(file: Path, size_px: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(str(file), size_px)
    except OSError:  # for example a font of bitmaps in other sizes
        return None
