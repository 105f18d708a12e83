from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tuner.data.image_statistics import STATISTICS, image_statistics
from tuner.data.pixel_cache import open_pixel_cache

ROWS, COLUMNS = np.mgrid[0:64, 0:128]


def described(picture: np.ndarray) -> dict[str, float]:
    return dict(zip(STATISTICS, image_statistics(picture[None].astype(np.uint8))[0].tolist(), strict=True))


def test_they_say_what_a_picture_is_like() -> None:
    across, down = described(128 + 100 * (COLUMNS % 8 < 4)), described(128 + 100 * (ROWS % 8 < 4))
    assert across["edges across"] > across["edges down"]
    assert across["columns"] > across["rows"]
    assert (down["edges down"], down["rows"]) == pytest.approx((across["edges across"], across["columns"]), abs=0.05)
    ink, light = np.full((64, 128), 230), np.full((64, 128), 30)
    ink[20:30, 20:30], light[20:30, 20:30] = 30, 230
    assert described(ink)["skewness"] < -1
    assert described(light)["skewness"] == pytest.approx(-described(ink)["skewness"], abs=1e-3)
    assert described(ink)["kurtosis"] > across["kurtosis"]


def test_tones_matter_to_the_contrast_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 100, (64, 128))
    one, other = described(picture), described(picture * 2 + 50)
    assert other.pop("contrast") == pytest.approx(one.pop("contrast") + np.log(2), abs=0.05)
    assert other == pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_a_picture_of_one_tone_has_finite_statistics(tone: int) -> None:
    assert np.isfinite(image_statistics(np.full((1, 64, 128), tone, np.uint8))).all()


def test_many_pictures_are_described_as_each_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 64, 128), np.uint8)
    together = image_statistics(images)
    assert together.shape == (300, len(STATISTICS))
    assert np.array_equal(together[299:], image_statistics(images[299:]))
    assert image_statistics(images[:0]).shape == (0, len(STATISTICS))


def test_a_split_has_the_statistics_of_its_images(generated: Path) -> None:
    split = open_pixel_cache(generated, ["val"])["val"]
    assert np.array_equal(split.image_statistics, image_statistics(np.array(split.images)))
