from __future__ import annotations

import numpy as np
import pytest

from tuner.data.rendering import backgrounds
from tuner.data.rendering.degradations import blur, contrast_and_noise, finish, is_legible, lose_contrast
from tuner.data.rendering.random_words import RandomWords

KINDS = [draw for _, draw in backgrounds.BACKGROUNDS]


def test_shares_of_the_backgrounds_add_up() -> None:
    assert sum(percent for percent, _ in backgrounds.BACKGROUNDS) == 100


@pytest.mark.parametrize("draw", KINDS, ids=lambda draw: draw.__name__)
def test_backgrounds_are_light_and_never_leave_the_range_of_bytes(draw: backgrounds.Background) -> None:
    for number in range(60):
        picture = draw(RandomWords(number))
        assert picture.shape == (64, 128, 3)
        assert picture.dtype == np.int16
        assert picture.min() >= 0
        assert picture.max() <= 255
        assert picture.mean() > 90


def test_kinds_look_as_they_are_called() -> None:
    drawn = {draw.__name__: draw(RandomWords(2)) for draw in KINDS}
    assert len(np.unique(drawn["plain"].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(drawn["grid"].reshape(-1, 3), axis=0)) == 2
    assert len(np.unique(drawn["lined"].reshape(-1, 3), axis=0)) == 2
    assert 2 < len(np.unique(drawn["gradient"].reshape(-1, 3), axis=0))
    assert drawn["noisy"].std(axis=(0, 1)).min() > 12


def test_some_backgrounds_are_tinted_and_some_grey() -> None:
    spreads = [np.ptp(backgrounds.plain(RandomWords(number))[0, 0]) for number in range(40)]
    assert min(spreads) == 0
    assert max(spreads) > 20


def test_blur_spreads_a_point_by_its_kernel_and_keeps_a_plain_picture() -> None:
    picture = np.zeros((5, 7, 3), np.int16)
    picture[2, 3] = 160
    assert blur(picture)[1:4, 2:5, 0].tolist() == [[10, 20, 10], [20, 40, 20], [10, 20, 10]]
    plain = np.full((5, 7, 3), 201, np.int16)
    assert np.array_equal(blur(plain), plain)


@pytest.mark.parametrize(("lift", "expected"), [(0, (0, 127)), (100, (127, 254)), (50, (63, 190))])
def test_contrast_is_lost_towards_dark_or_light(lift: int, expected: tuple[int, int]) -> None:
    picture = np.array([[[0, 0, 0], [255, 255, 255]]], np.int16)
    assert tuple(lose_contrast(picture, 50, lift)[0, :, 0]) == expected


def test_finished_picture_is_cut_to_bytes() -> None:
    assert finish(np.array([[[-40, 7, 300]]], np.int16)).tolist() == [[[0, 7, 255]]]


@pytest.mark.parametrize(
    ("ink", "noise", "size_px", "legible"),
    [(60, 0, 12, True), (150, 0, 38, False), (60, 60, 12, False), (60, 50, 38, True), (220, 0, 38, False)],
)
def test_legible_is_what_stands_off_the_paper_and_its_noise(ink: int, noise: int, size_px: int, legible: bool) -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[5:15, 10:14] = mask[5:15, 20:24] = 255
    dice = RandomWords(1).block(20, 40, 1).astype(np.int16) - 128
    paper = 180 + np.broadcast_to(dice * noise // 128, (20, 40, 3))
    part = finish(np.where(mask[:, :, None] > 0, ink, paper).astype(np.int16))
    contrast, measured = contrast_and_noise(part, mask)
    assert contrast == pytest.approx(180 - ink, abs=5)
    assert measured == pytest.approx(noise / 2, abs=3)
    assert is_legible(part, mask, size_px) == legible
