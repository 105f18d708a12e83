import hashlib
import shutil
import struct
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

from search_spaces.errors import ConfigurationError
from tuner.data.generation import fonts
from tuner.data.generation.fonts import (
    Font,
    find_fonts,
    label_glyphs,
    pinned_font_file,
    pinned_fonts,
    render_glyphs,
    shaping_direction,
)
from tuner.data.vocabulary import KHMER_DIGITS

DEJAVU_SANS = Font("DejaVuSans", str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")))


def digit_glyphs(font, size_px):
    return render_glyphs(font, size_px, tuple(KHMER_DIGITS), None)


def same_ink(one, other):
    return np.array_equal(one.coverage, other.coverage)


def test_pinned_fonts_vary_in_weight_and_width():
    fonts = pinned_fonts()
    assert len({font.name for font in fonts}) == len(fonts) == 22
    assert len({font.axes[0] for font in fonts}) >= 6
    assert len({font.axes[1] for font in fonts}) >= 4
    assert len({digit_glyphs(font, 30)["៣"].coverage.tobytes() for font in fonts}) == len(fonts)


@pytest.mark.parametrize("size_px", [12, 38])
def test_digits_are_ten_different_bitmaps_cropped_to_their_ink(size_px):
    glyphs = digit_glyphs(pinned_fonts()[8], size_px)
    assert "".join(glyphs) == KHMER_DIGITS
    assert len({glyph.coverage.tobytes() for glyph in glyphs.values()}) == 10
    for glyph in glyphs.values():
        ink = glyph.coverage
        assert ink.shape == (glyph.bottom - glyph.top, glyph.width)
        assert ink[0].any()
        assert ink[-1].any()
        assert ink[:, 0].any()
        assert ink[:, -1].any()
    assert size_px / 2 < glyphs["០"].coverage.shape[0] < size_px


def test_bitmaps_of_the_pinned_font_are_pinned():
    """If this fails after an update of Pillow, FreeType renders other bitmaps now: old datasets cannot be recreated.

    The bitmaps are equal from Pillow 10.1 (FreeType 2.13.2) to 13.0 (2.14.3) as long as the auto-hinter is off.
    """
    digest = hashlib.sha256()
    for font in pinned_fonts():
        for size_px in (12, 17, 23, 38):
            for glyph in digit_glyphs(font, size_px).values():
                digest.update(f"{glyph.top} {glyph.coverage.shape} ".encode() + glyph.coverage.tobytes())
    assert digest.hexdigest() == "962e6f2a78e96a4c4e6d0a8058e1c86636963bbd734b922ce21bb2cea2067e9f"


@pytest.mark.parametrize(
    ("characters", "direction"),
    [
        ("០១២", None),
        ("កខគ", None),
        ("AWé中ア한", None),
        ("٠١٢", None),  # Arabic digits neither join nor run from right to left
        (["ក", "ក្ក"], "ltr"),
        ("កា", "ltr"),  # the vowel on its own is a combining mark
        ("अब", "ltr"),
        ("কখ", "ltr"),
        ("ਕਖ", "ltr"),
        ("اب", "rtl"),
        ("1א", "rtl"),
        ("ߊߋ", "rtl"),
        ("ܐܒ", "rtl"),
    ],
)
def test_scripts_whose_characters_change_their_neighbours_are_shaped(characters, direction):
    assert shaping_direction(tuple(characters)) == direction


def test_label_without_shaping_has_the_same_glyphs_in_any_vocabulary():
    for characters in ("AW", "WXYAZ"):
        first, second = label_glyphs(DEJAVU_SANS, 24, ["W", "A"], tuple(characters))
        assert same_ink(first, render_glyphs(DEJAVU_SANS, 24, ("W",), None)["W"])
        assert same_ink(second, render_glyphs(DEJAVU_SANS, 24, ("A",), None)["A"])


def test_arabic_letters_of_a_label_are_joined_from_right_to_left():
    beh, alef = "\u0628", "\u0627"
    (shaped,) = label_glyphs(DEJAVU_SANS, 40, [beh, alef], (alef, beh))
    separate = label_glyphs(DEJAVU_SANS, 40, [beh], (alef, beh)) + label_glyphs(DEJAVU_SANS, 40, [alef], (alef, beh))
    assert shaped.coverage.any(axis=0).all()  # no gap: the letters are joined
    assert shaped.width < sum(glyph.width for glyph in separate)
    tall = (shaped.coverage > 128).sum(axis=0)
    assert tall.argmax() < shaped.width / 3  # alef, the tall second letter, is at the left


def test_khmer_subscript_is_below_its_consonant():
    font = pinned_fonts()[8]
    characters = ("\u1780", "\u1780\u17d2\u1780")
    (consonant,), (cluster,) = (label_glyphs(font, 40, [character], characters) for character in characters)
    assert cluster.bottom > consonant.bottom + 5
    assert cluster.width < consonant.width * 1.3  # below it, not beside it


DEJAVU = Path(matplotlib.get_data_path(), "fonts/ttf")


@pytest.fixture
def folder(tmp_path):
    """A folder with one Khmer font, in a subfolder, and files that are no fonts."""
    fonts = tmp_path / "fonts"
    (fonts / "khmer").mkdir(parents=True)
    shutil.copy(pinned_font_file(), fonts / "khmer" / "Noto.TTF")
    (fonts / "broken.ttf").write_bytes(b"not a font")
    (fonts / "readme.txt").write_text("hello")
    return fonts


def font_with(characters, path, family="Made", *, glyph="box"):
    """Write a font in which all characters have the same glyph: a box or an empty one."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "box", "empty"])
    builder.setupCharacterMap({ord(character): glyph for character in characters})
    box = TTGlyphPen(None)
    for number, point in enumerate([(0, 0), (0, 500), (500, 500), (500, 0)]):
        (box.lineTo if number else box.moveTo)(point)
    box.closePath()
    outline = box.glyph()
    builder.setupGlyf({".notdef": outline, "box": outline, "empty": TTGlyphPen(None).glyph()})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "box", "empty"), (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def names(choice, folder, characters=KHMER_DIGITS):
    """Return the names of the fonts that are found, without the pinned ones."""
    return [font.name for font in find_fonts(choice, folder, tuple(characters)) if font.path]


def test_choice_pinned_only_gives_the_pinned_fonts():
    assert find_fonts("pinned", None) == pinned_fonts()


@pytest.mark.parametrize("characters", ["ABCxyz019", "កខគ", ["ក្ក", "ខ្ម"]])
def test_pinned_font_has_khmer_and_latin_letters(characters):
    assert find_fonts("pinned", None, tuple(characters)) == pinned_fonts()


def test_fonts_of_a_folder_are_added(folder):
    font_with("ABC", folder / "latin.ttf")
    added = find_fonts("pinned", folder)[len(pinned_fonts()) :]
    assert [font.name for font in added] == ["NotoSansKhmer"]
    assert len(render_glyphs(added[0], 20, tuple(KHMER_DIGITS), None)) == 10


def test_only_fonts_with_all_characters_are_added():
    latin = names("pinned", DEJAVU, "AWé")
    assert {"DejaVuSans-Book", "DejaVuSerif-Bold", "DejaVuSansMono-Oblique"} <= set(latin)
    assert "cmex10" not in latin
    cyrillic = find_fonts("pinned", DEJAVU, tuple("АБЖ"))
    assert {"DejaVuSans-Book", "DejaVuSerif-Book"} <= {font.name for font in cyrillic}
    assert all(font.path for font in cyrillic)  # the pinned font has no Cyrillic letters
    arabic = {font.design for font in find_fonts("pinned", DEJAVU, tuple("ابت"))}
    assert arabic == {"DejaVu Sans", "DejaVu Sans Mono"}


def test_fallback_font_with_a_placeholder_for_every_character_is_refused(tmp_path):
    shutil.copy(DEJAVU / "LastResortHE-Regular.ttf", tmp_path)
    with pytest.raises(ConfigurationError, match="LastResortHigh-Efficiency lacks 'A'"):
        find_fonts("pinned", tmp_path, ("A", "Ж"))


def test_installed_fonts_are_added(folder, monkeypatch):
    monkeypatch.setattr(fonts, "system_font_folders", lambda: [folder, folder / "khmer", folder / "none"])
    assert names("system", folder) == ["NotoSansKhmer"]  # found three times, added once


def test_installed_fonts_of_this_system_have_all_digits():
    for font in find_fonts("system", None):
        glyphs = render_glyphs(font, 24, tuple(KHMER_DIGITS), None)
        assert len({glyph.coverage.tobytes() for glyph in glyphs.values()}) == 10


def test_different_fonts_with_the_same_name_get_different_names(folder):
    with TTFont(pinned_font_file()) as font:
        font["head"].unitsPerEm = 1500  # smaller glyphs
        font.save(folder / "khmer" / "Other.ttf")
    found = names("pinned", folder)
    assert len(set(found)) == len(found) == 2


def test_fonts_that_render_all_characters_alike_are_one(folder):
    other = shutil.copy(folder / "khmer" / "Noto.TTF", folder / "khmer" / "other.ttf")
    renamed = TTFont(other)
    for record in renamed["name"].names:
        record.string = "Zoo" if record.nameID in (1, 16) else str(record)
    renamed.save(other)
    assert names("pinned", folder) == ["NotoSansKhmer"]


@pytest.mark.parametrize(
    ("family", "design"),
    [
        ("Khmer OS Battambang", "Khmer OS Battambang"),
        ("Khmer OS Battambang Light", "Khmer OS Battambang"),
        ("Made Semi Bold Condensed", "Made"),
        ("Made ExtraLight Italic", "Made"),
        ("Noto Sans Khmer UI Thin", "Noto Sans Khmer"),
        ("Nightlight", "Nightlight"),
        ("Bold", "Bold"),
        ("Black Book Serif", "Black Book Serif"),
    ],
)
def test_design_is_the_family_without_style_words_at_its_end(family, design, tmp_path):
    font_with("A", tmp_path / "font.ttf", family)
    (font,) = (font for font in find_fonts("pinned", tmp_path, ("A",)) if font.path)
    assert font.design == design


def test_all_weights_and_slants_are_one_design():
    designs = {font.name: font.design for font in find_fonts("pinned", DEJAVU, tuple("AB"))}
    serif = {name for name, design in designs.items() if design == "DejaVu Serif"}
    assert {"DejaVuSerif-Book", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"} == serif
    assert {font.design for font in pinned_fonts()} == {"Noto Sans Khmer"}


def test_installed_noto_sans_khmer_is_the_pinned_design(folder):
    assert {font.design for font in find_fonts("pinned", folder)} == {"Noto Sans Khmer"}


@pytest.mark.parametrize(
    ("characters", "glyph", "defect"),
    [
        ("A", "box", r"Made lacks '០' \(U\+17E0\), '១' \(U\+17E1\), '២' \(U\+17E2\) and 7 more"),
        (KHMER_DIGITS, "box", "Made shows ០, ១, ២ and 7 more alike"),
        (KHMER_DIGITS, "empty", "Made shows ០, ១, ២ and 7 more empty"),
    ],
)
def test_folder_without_a_suitable_font_is_refused(characters, glyph, defect, tmp_path):
    font_with(characters, tmp_path / "made.ttf", glyph=glyph)
    with pytest.raises(ConfigurationError, match=f"--fonts-dir: found no font in .* with all of ០១.*{defect}"):
        find_fonts("pinned", tmp_path)


def test_font_with_one_empty_glyph_is_refused(tmp_path):
    font_with("A", tmp_path / "made.ttf", glyph="empty")
    with pytest.raises(ConfigurationError, match="Made shows A empty"):
        find_fonts("pinned", tmp_path, ("A",))


def test_folder_without_fonts_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"it has no fonts.*add \.ttf or \.otf files"):
        find_fonts("pinned", tmp_path)


@pytest.mark.parametrize(("table", "defect"), [(b"cmap", "lacks '០'"), (b"glyf", "is damaged: invalid outline")])
def test_damaged_font_is_refused(table, defect, tmp_path):
    content = bytearray(font_with(KHMER_DIGITS, tmp_path / "made.ttf").read_bytes())
    offset, length = struct.unpack_from(">II", content, content.index(table) + 8)
    content[offset + 4 : offset + length] = b"\x7f" * (length - 4)
    (tmp_path / "made.ttf").write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"found no font in .*Made {defect}"):
        find_fonts("pinned", tmp_path)


def test_characters_that_no_font_has_are_refused():
    message = r"--characters: found no font with all of AЖ .Noto Sans Khmer lacks 'Ж' .U\+0416.*--fonts system"
    with pytest.raises(ConfigurationError, match=message):
        find_fonts("pinned", None, ("A", "Ж"))


@pytest.mark.parametrize(("choice", "message"), [("sytem", "'pinned' or 'system'"), ("", "'pinned' or 'system'")])
def test_unknown_choice_is_refused(choice, message):
    with pytest.raises(ConfigurationError, match=message):
        find_fonts(choice, None)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="expected a folder with font files"):
        find_fonts("pinned", tmp_path / "none")
