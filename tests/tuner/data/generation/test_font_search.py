from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import ImageFont

from search_spaces.errors import ConfigurationError
from tuner.data.generation import font_search
from tuner.data.generation.font_search import find_fonts
from tuner.data.rendering.fonts import draw_digits, pinned_font_file, pinned_fonts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one font that has the digits, in a subfolder, and files that are of no use."""
    fonts = tmp_path / "fonts"
    (fonts / "khmer").mkdir(parents=True)
    shutil.copy(pinned_font_file(), fonts / "khmer" / "Noto.TTF")
    (fonts / "broken.ttf").write_bytes(b"not a font")
    (fonts / "readme.txt").write_text("hello")
    return fonts


def latin_font(folder: Path) -> Path:
    """A font without Khmer digits: the one that Pillow carries."""
    path = folder / "latin.ttf"
    font = ImageFont.load_default(size=20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    path.write_bytes(font.font_bytes)
    return path


def test_pinned_is_nothing_else() -> None:
    assert find_fonts("pinned", None) == pinned_fonts()


def test_fonts_of_a_folder_are_added(folder: Path) -> None:
    latin_font(folder)
    added = find_fonts("pinned", folder)[len(pinned_fonts()) :]
    assert [font.name for font in added] == ["NotoSansKhmer"]
    assert len(draw_digits(added[0], 20)) == 10


def test_installed_fonts_are_added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(font_search, "system_font_folders", lambda: [folder, folder / "khmer", folder / "none"])
    names = [font.name for font in find_fonts("system", folder)]
    assert names[len(pinned_fonts()) :] == ["NotoSansKhmer"]  # found three times, used once


def test_installed_fonts_of_this_system_have_all_digits() -> None:
    for font in find_fonts("system", None):
        glyphs = draw_digits(font, 24)
        assert len({glyph.coverage.tobytes() for glyph in glyphs.values()}) == 10


def test_different_fonts_of_one_name_are_told_apart(folder: Path) -> None:
    other = folder / "khmer" / "Other.ttf"
    other.write_bytes(pinned_font_file().read_bytes() + b"\0")
    names = [font.name for font in find_fonts("pinned", folder)]
    assert len(set(names)) == len(names) == len(pinned_fonts()) + 2


def test_font_without_the_digits_is_refused(tmp_path: Path) -> None:
    latin_font(tmp_path)
    with pytest.raises(ConfigurationError, match=r"all ten Khmer digits.*latin\.ttf"):
        find_fonts("pinned", tmp_path)


@pytest.mark.parametrize(("choice", "told"), [("sytem", "'pinned' or 'system'"), ("", "'pinned' or 'system'")])
def test_unknown_choice(choice: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        find_fonts(choice, None)


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected a folder with font files"):
        find_fonts("pinned", tmp_path / "none")
