import numpy as np
import pytest

from tuner.data.generation.canvas import (
    BACKGROUNDS,
    blur,
    contrast_and_noise,
    is_legible,
    plain,
    reduce_contrast,
    to_image,
)
from tuner.data.generation.stable_random import StableRandom

KINDS = [background for _, background in BACKGROUNDS]


def test_percentages_of_the_backgrounds_add_up_to_100():
    assert sum(percent for percent, _ in BACKGROUNDS) == 100


@pytest.mark.parametrize("background", KINDS, ids=lambda background: background.__name__)
def test_backgrounds_are_light_and_within_0_to_255(background):
    for number in range(60):
        canvas = background(StableRandom(number))
        assert canvas.shape == (64, 128, 3)
        assert canvas.dtype == np.int16
        assert canvas.min() >= 0
        assert canvas.max() <= 255
        assert canvas.mean() > 90


def test_number_of_colours_and_noise_match_the_kind_of_background():
    canvases = {background.__name__: background(StableRandom(2)) for background in KINDS}
    assert len(np.unique(canvases["plain"].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(canvases["grid"].reshape(-1, 3), axis=0)) == 2
    assert len(np.unique(canvases["lined"].reshape(-1, 3), axis=0)) == 2
    assert 2 < len(np.unique(canvases["gradient"].reshape(-1, 3), axis=0))
    assert canvases["noisy"].std(axis=(0, 1)).min() > 12


def test_some_backgrounds_are_tinted_and_some_grey():
    spreads = [np.ptp(plain(StableRandom(number))[0, 0]) for number in range(40)]
    assert min(spreads) == 0
    assert max(spreads) > 20


def test_blur_spreads_a_point_by_its_kernel_and_keeps_a_plain_canvas():
    canvas = np.zeros((5, 7, 3), np.int16)
    canvas[2, 3] = 160
    assert blur(canvas)[1:4, 2:5, 0].tolist() == [[10, 20, 10], [20, 40, 20], [10, 20, 10]]
    plain = np.full((5, 7, 3), 201, np.int16)
    assert np.array_equal(blur(plain), plain)


@pytest.mark.parametrize(("lift", "expected"), [(0, (0, 127)), (100, (127, 254)), (50, (63, 190))])
def test_reduced_contrast_is_darker_or_lighter_depending_on_lift(lift, expected):
    canvas = np.array([[[0, 0, 0], [255, 255, 255]]], np.int16)
    assert tuple(reduce_contrast(canvas, 50, lift)[0, :, 0]) == expected


def test_final_image_is_clipped_to_bytes():
    assert to_image(np.array([[[-40, 7, 300]]], np.int16)).tolist() == [[[0, 7, 255]]]


@pytest.mark.parametrize(
    ("ink", "noise", "size_px", "legible"),
    [(60, 0, 12, True), (150, 0, 38, False), (60, 60, 12, False), (60, 50, 38, True), (220, 0, 38, False)],
)
def test_text_is_legible_if_its_contrast_exceeds_the_noise(ink, noise, size_px, legible):
    mask = np.zeros((20, 40), np.uint8)
    mask[5:15, 10:14] = mask[5:15, 20:24] = 255
    uniform = StableRandom(1).byte_array(20, 40, 1).astype(np.int16) - 128
    paper = 180 + np.broadcast_to(uniform * noise // 128, (20, 40, 3))
    part = to_image(np.where(mask[:, :, None] > 0, ink, paper).astype(np.int16))
    contrast, measured = contrast_and_noise(part, mask)
    assert contrast == pytest.approx(180 - ink, abs=5)
    assert measured == pytest.approx(noise / 2, abs=3)
    assert is_legible(part, mask, size_px) == legible
