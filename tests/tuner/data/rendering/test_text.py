import numpy as np
import pytest

from tuner.data.rendering.fonts import pinned_fonts, render_glyphs
from tuner.data.rendering.text import rotate_mask, rotated_size, text_mask, text_size
from tuner.data.vocabulary import KHMER_DIGITS

FONT = pinned_fonts()[10]


def glyphs(size_px, label):
    rendered = render_glyphs(FONT, size_px, tuple(KHMER_DIGITS), None)
    return [rendered[digit] for digit in label]


def test_mask_has_the_size_of_text_size_and_a_maximum_of_255():
    mask = text_mask(glyphs(20, "០១២៣"), 2)
    assert mask.shape == text_size(glyphs(20, "០១២៣"), 2)
    assert mask.max() == 255
    assert mask[0].any()
    assert mask[:, -1].any()


def test_gaps_are_empty_columns():
    mask = text_mask(glyphs(20, "០០"), 3)
    middle = mask.shape[1] // 2
    assert not mask[:, middle - 1 : middle + 2].any()
    assert np.array_equal(mask[:, : middle - 1], mask[:, middle + 2 :])


def test_longer_labels_are_wider():
    widths = [text_size(glyphs(14, "៤" * length), 1)[1] for length in range(1, 9)]
    assert np.all(np.diff(widths) > 0)


def test_rotation_by_zero_returns_the_same_mask():
    mask = text_mask(glyphs(20, "៥៦"), 1)
    assert rotate_mask(mask, 0) is mask


@pytest.mark.parametrize("tenth_degrees", [-50, -13, 7, 50])
def test_rotated_mask_has_the_size_of_rotated_size_and_keeps_all_ink(tenth_degrees):
    mask = text_mask(glyphs(24, "៥៦៧៨"), 2)
    rotated = rotate_mask(mask, tenth_degrees)
    height, width = mask.shape
    assert rotated.shape == rotated_size(height, width, tenth_degrees)
    assert int(rotated.sum()) == pytest.approx(int(mask.sum()), rel=0.02)  # no ink is cut off or blurred away
    assert rotated[0].max() < 128
    assert rotated[-1].max() < 128


@pytest.mark.parametrize(("tenth_degrees", "left_end_is_lower"), [(50, False), (-50, True)])
def test_rotation_is_by_the_requested_angle(tenth_degrees, left_end_is_lower):
    bar = np.full((4, 100), 255, np.uint8)
    rotated = rotate_mask(bar, tenth_degrees)
    rows = np.arange(rotated.shape[0])[:, None]
    middles = (rotated * rows).sum(axis=0) / np.maximum(rotated.sum(axis=0), 1)
    fall = middles[90] - middles[10]
    assert fall == pytest.approx(np.tan(np.radians(tenth_degrees / 10)) * 80, abs=0.2)
    assert (fall < 0) == left_end_is_lower
