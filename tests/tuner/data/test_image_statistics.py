import numpy as np
import pytest

from tuner.data.image_statistics import STATISTICS, image_statistics
from tuner.data.pixel_cache import open_pixel_cache

ROWS, COLUMNS = np.mgrid[0:64, 0:128]


def statistics_of(image):
    return dict(zip(STATISTICS, image_statistics(image[None].astype(np.uint8))[0].tolist(), strict=True))


def test_statistics_depend_on_stripes_and_ink():
    across, down = statistics_of(128 + 100 * (COLUMNS % 8 < 4)), statistics_of(128 + 100 * (ROWS % 8 < 4))
    assert across["edges across"] > across["edges down"]
    assert across["columns"] > across["rows"]
    assert (down["edges down"], down["rows"]) == pytest.approx((across["edges across"], across["columns"]), abs=0.05)
    ink, light = np.full((64, 128), 230), np.full((64, 128), 30)
    ink[20:30, 20:30], light[20:30, 20:30] = 30, 230
    assert statistics_of(ink)["skewness"] < -1
    assert statistics_of(light)["skewness"] == pytest.approx(-statistics_of(ink)["skewness"], abs=1e-3)
    assert statistics_of(ink)["kurtosis"] > across["kurtosis"]


def test_linear_change_of_tones_only_changes_the_contrast():
    image = np.random.default_rng(0).integers(0, 100, (64, 128))
    one, other = statistics_of(image), statistics_of(image * 2 + 50)
    assert other.pop("contrast") == pytest.approx(one.pop("contrast") + np.log(2), abs=0.05)
    assert other == pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_image_of_one_tone_has_finite_statistics(tone):
    assert np.isfinite(image_statistics(np.full((1, 64, 128), tone, np.uint8))).all()


def test_split_has_the_statistics_of_its_images(generated):
    split = open_pixel_cache(generated, ["val"])["val"]
    assert np.array_equal(split.image_statistics, image_statistics(np.array(split.images)))


def test_statistics_of_many_images_equal_those_of_each_image():
    images = np.random.default_rng(0).integers(0, 256, (300, 64, 128), np.uint8)
    statistics = image_statistics(images)
    assert statistics.shape == (300, len(STATISTICS))
    assert np.array_equal(statistics[299:], image_statistics(images[299:]))
    assert image_statistics(images[:0]).shape == (0, len(STATISTICS))
