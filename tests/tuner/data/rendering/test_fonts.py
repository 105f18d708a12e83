import hashlib
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from tuner.data.rendering.fonts import Font, label_glyphs, pinned_fonts, render_glyphs, shaping_direction
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
