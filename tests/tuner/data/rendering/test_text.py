from __future__ import annotations

import numpy as np
import pytest

from tuner.data.rendering.fonts import pinned_fonts
from tuner.data.rendering.text import rotate_mask, rotated_size, text_mask, text_size

FONT = pinned_fonts()[10]


def test_text_is_as_large_as_announced_and_fully_dark_somewhere() -> None:
    mask = text_mask(FONT, 20, "០១២៣", 2)
    assert mask.shape == text_size(FONT, 20, "០១២៣", 2)
    assert mask.max() == 255
    assert mask[0].any()
    assert mask[:, -1].any()


def test_gaps_are_empty_columns() -> None:
    mask = text_mask(FONT, 20, "០០", 3)
    middle = mask.shape[1] // 2
    assert not mask[:, middle - 1 : middle + 2].any()
    assert np.array_equal(mask[:, : middle - 1], mask[:, middle + 2 :])


def test_longer_labels_are_wider() -> None:
    widths = [text_size(FONT, 14, "៤" * length, 1)[1] for length in range(1, 9)]
    assert np.all(np.diff(widths) > 0)


def test_no_rotation_leaves_the_mask_as_it_is() -> None:
    mask = text_mask(FONT, 20, "៥៦", 1)
    assert rotate_mask(mask, 0) is mask


@pytest.mark.parametrize("tenth_degrees", [-50, -13, 7, 50])
def test_rotation_keeps_all_ink_inside_the_announced_size(tenth_degrees: int) -> None:
    mask = text_mask(FONT, 24, "៥៦៧៨", 2)
    turned = rotate_mask(mask, tenth_degrees)
    height, width = mask.shape
    assert turned.shape == rotated_size(height, width, tenth_degrees)
    assert int(turned.sum()) == pytest.approx(int(mask.sum()), rel=0.02)  # none cut off, none smeared
    assert turned[0].max() < 128
    assert turned[-1].max() < 128


@pytest.mark.parametrize(("tenth_degrees", "left_end_is_lower"), [(50, False), (-50, True)])
def test_rotation_is_by_the_angle_asked_for(tenth_degrees: int, left_end_is_lower: bool) -> None:
    bar = np.full((4, 100), 255, np.uint8)
    turned = rotate_mask(bar, tenth_degrees)
    rows = np.arange(turned.shape[0])[:, None]
    middles = (turned * rows).sum(axis=0) / np.maximum(turned.sum(axis=0), 1)
    fall = middles[90] - middles[10]
    assert fall == pytest.approx(np.tan(np.radians(tenth_degrees / 10)) * 80, abs=0.2)
    assert (fall < 0) == left_end_is_lower
