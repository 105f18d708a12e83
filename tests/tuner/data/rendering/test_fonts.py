from __future__ import annotations

import hashlib

import pytest

from tuner.data.rendering.fonts import digit_glyphs, pinned_fonts
from tuner.data.vocabulary import KHMER_DIGITS


def test_pinned_fonts_vary_in_weight_and_width() -> None:
    fonts = pinned_fonts()
    assert len({font.name for font in fonts}) == len(fonts) == 22
    assert len({font.axes[0] for font in fonts}) >= 6
    assert len({font.axes[1] for font in fonts}) >= 4
    assert len({digit_glyphs(font, 30)["៣"].coverage.tobytes() for font in fonts}) == len(fonts)


@pytest.mark.parametrize("size_px", [12, 38])
def test_digits_are_ten_different_bitmaps_cropped_to_their_ink(size_px: int) -> None:
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


def test_bitmaps_of_the_pinned_font_are_pinned() -> None:
    """If this fails after an update of Pillow, FreeType renders other bitmaps now: old datasets cannot be recreated.

    The bitmaps are equal from Pillow 10.1 (FreeType 2.13.2) to 13.0 (2.14.3) as long as the auto-hinter is off.
    """
    digest = hashlib.sha256()
    for font in pinned_fonts():
        for size_px in (12, 17, 23, 38):
            for glyph in digit_glyphs(font, size_px).values():
                digest.update(f"{glyph.top} {glyph.coverage.shape} ".encode() + glyph.coverage.tobytes())
    assert digest.hexdigest() == "962e6f2a78e96a4c4e6d0a8058e1c86636963bbd734b922ce21bb2cea2067e9f"
