"""Text in plots: in any script that an available font has, with shaping if Pillow supports it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

from tuner.data.generation.font_search import font_characters, font_files, system_font_folders
from tuner.data.rendering.fonts import pinned_font_file


def draw_text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size_px: int, color: str, anchor: str = "lm"
) -> None:
    """Write a text on an image; if no font has all of its characters, write their code points."""
    file = _font_file(frozenset(text))
    if file is None:
        text, file = " ".join(f"U+{ord(character):04X}" for character in text), pinned_font_file()
    draw.text(at, text, font=_font(file, size_px), fill=color, anchor=anchor)


@cache
def _font_file(characters: frozenset[str]) -> Path | None:
    """Return the first font file that has all characters; None if there is none."""
    return next((file for file in _font_files() if characters <= font_characters(file)), None)


def _font_files() -> Iterator[Path]:
    """Yield the pinned font, the fonts of matplotlib, and the installed fonts."""
    import matplotlib

    yield pinned_font_file()
    yield from font_files([Path(matplotlib.get_data_path(), "fonts", "ttf"), *system_font_folders()])


@cache
def _font(file: Path, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size_px)
