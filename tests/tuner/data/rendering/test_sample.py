from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from tuner.data.rendering.fonts import pinned_fonts
from tuner.data.rendering.png import encode_png
from tuner.data.rendering.sample import Sample, render_sample

FONTS = pinned_fonts()


@pytest.fixture(scope="module")
def rendered() -> list[tuple[Sample, npt.NDArray[np.uint8]]]:
    return [render_sample(FONTS, 0, 0, number) for number in range(600)]


def test_bytes_are_pinned() -> None:
    """If this fails, increment `_GENERATOR_VERSION` in recipe.py, or undo the change if it was unintentional."""
    digest = hashlib.sha256()
    for number in range(40):
        sample, pixels = render_sample(FONTS, 5, 1, number)
        digest.update(repr(sample).encode() + encode_png(pixels))
    assert digest.hexdigest() == "9ad0bf5d23eeea29b53723f7b6e8829a17eacda1deb6e7a8e3f3b1d9094c7cba"


def test_sample_only_depends_on_seed_split_and_number() -> None:
    again = render_sample(FONTS, 0, 0, 7)
    assert again[0] == render_sample(FONTS, 0, 0, 7)[0]
    others = [render_sample(FONTS, *key)[1] for key in [(1, 0, 7), (0, 1, 7), (0, 0, 8)]]
    assert all(not np.array_equal(again[1], other) for other in others)


def test_lengths_digits_and_fonts_are_nearly_uniform(
    rendered: list[tuple[Sample, npt.NDArray[np.uint8]]],
) -> None:
    lengths = Counter(len(sample.label) for sample, _ in rendered)
    assert set(lengths) == set(range(1, 9))
    assert min(lengths.values()) > 45
    digits = Counter("".join(sample.label for sample, _ in rendered))
    assert len(digits) == 10
    assert min(digits.values()) > 200
    assert len({sample.font for sample, _ in rendered}) == len(FONTS)


def test_font_sizes_are_12_to_38_and_decrease_with_the_label_length(
    rendered: list[tuple[Sample, npt.NDArray[np.uint8]]],
) -> None:
    sizes: dict[int, list[int]] = {}
    for sample, _ in rendered:
        sizes.setdefault(len(sample.label), []).append(sample.font_size)
    averages = [np.mean(sizes[length]) for length in range(1, 9)]
    assert averages == sorted(averages, reverse=True)
    assert 12 <= min(map(min, sizes.values())) <= 14
    assert max(sizes[1]) == 38


def test_two_thirds_are_augmented_and_text_is_black_to_grey(
    rendered: list[tuple[Sample, npt.NDArray[np.uint8]]],
) -> None:
    assert 0.6 < np.mean([sample.augmented for sample, _ in rendered]) < 0.75
    levels = [sample.text_color for sample, _ in rendered]
    assert all(red == green == blue for red, green, blue in levels)
    assert min(levels)[0] < 5
    assert 80 < max(levels)[0] <= 110


def test_text_is_inside_the_image_and_darker_than_its_surroundings(
    rendered: list[tuple[Sample, npt.NDArray[np.uint8]]],
) -> None:
    for sample, pixels in rendered:
        assert pixels.shape == (64, 128, 3)
        left, top = sample.text_position
        assert 2 <= left < 126
        assert 2 <= top < 62
        window = pixels[top : top + sample.font_size // 2, left : left + sample.font_size // 2].astype(int)
        assert np.percentile(window, 5) < pixels.mean() - 20


def test_text_position_varies(
    rendered: list[tuple[Sample, npt.NDArray[np.uint8]]],
) -> None:
    short = [sample.text_position for sample, _ in rendered if len(sample.label) == 2]
    assert np.ptp([left for left, _ in short]) > 25
    assert np.ptp([top for _, top in short]) > 15
