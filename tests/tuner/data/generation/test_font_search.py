from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import ImageFont

from search_spaces.errors import ConfigurationError
from tuner.data.generation import font_search
from tuner.data.generation.font_search import find_fonts
from tuner.data.rendering.fonts import digit_glyphs, pinned_font_file, pinned_fonts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one Khmer font, in a subfolder, and files that are no fonts."""
    fonts = tmp_path / "fonts"
    (fonts / "khmer").mkdir(parents=True)
    shutil.copy(pinned_font_file(), fonts / "khmer" / "Noto.TTF")
    (fonts / "broken.ttf").write_bytes(b"not a font")
    (fonts / "readme.txt").write_text("hello")
    return fonts


def latin_font(folder: Path) -> Path:
    """Write a font without Khmer digits: Pillow's default font."""
    path = folder / "latin.ttf"
    font = ImageFont.load_default(size=20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    path.write_bytes(font.font_bytes)
    return path


def test_choice_pinned_only_gives_the_pinned_fonts() -> None:
    assert find_fonts("pinned", None) == pinned_fonts()


def test_fonts_of_a_folder_are_added(folder: Path) -> None:
    latin_font(folder)
    added = find_fonts("pinned", folder)[len(pinned_fonts()) :]
    assert [font.name for font in added] == ["NotoSansKhmer"]
    assert len(digit_glyphs(added[0], 20)) == 10


def test_installed_fonts_are_added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(font_search, "system_font_folders", lambda: [folder, folder / "khmer", folder / "none"])
    names = [font.name for font in find_fonts("system", folder)]
    assert names[len(pinned_fonts()) :] == ["NotoSansKhmer"]  # found three times, added once


def test_installed_fonts_of_this_system_have_all_digits() -> None:
    for font in find_fonts("system", None):
        glyphs = digit_glyphs(font, 24)
        assert len({glyph.coverage.tobytes() for glyph in glyphs.values()}) == 10


def test_different_fonts_with_the_same_name_get_different_names(folder: Path) -> None:
    other = folder / "khmer" / "Other.ttf"
    other.write_bytes(pinned_font_file().read_bytes() + b"\0")
    names = [font.name for font in find_fonts("pinned", folder)]
    assert len(set(names)) == len(names) == len(pinned_fonts()) + 2


def test_folder_without_a_khmer_font_is_refused(tmp_path: Path) -> None:
    latin_font(tmp_path)
    with pytest.raises(ConfigurationError, match=r"all ten Khmer digits.*latin\.ttf"):
        find_fonts("pinned", tmp_path)


@pytest.mark.parametrize(("choice", "message"), [("sytem", "'pinned' or 'system'"), ("", "'pinned' or 'system'")])
def test_unknown_choice_is_refused(choice: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        find_fonts(choice, None)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected a folder with font files"):
        find_fonts("pinned", tmp_path / "none")
