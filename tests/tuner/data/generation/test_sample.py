import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from tuner.data.generation.fonts import Font, is_mark, pinned_fonts, render_glyphs
from tuner.data.generation.png import encode_png
from tuner.data.generation.sample import render_sample, rotate_mask, rotated_size, text_mask, text_size
from tuner.data.vocabulary import KHMER_DIGITS, Vocabulary, split_characters

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


FONTS = pinned_fonts()
DIGITS = Vocabulary()
DEJAVU_SANS = Font(
    "DejaVuSans", str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), design="DejaVu Sans"
)


def labels(vocabulary, count, fonts=FONTS):
    """Return the characters of the labels of `count` samples."""
    samples = (render_sample(fonts, vocabulary, 0, 0, number)[0] for number in range(count))
    return [vocabulary.split(sample.label) for sample in samples]


@pytest.fixture(scope="module")
def rendered():
    return [render_sample(FONTS, DIGITS, 0, 0, number) for number in range(600)]


def test_bytes_are_pinned():
    """If this fails, increment `_GENERATOR_VERSION` in recipe.py, or undo the change if it was unintentional."""
    digest = hashlib.sha256()
    for number in range(40):
        sample, pixels = render_sample(FONTS, DIGITS, 5, 1, number)
        digest.update(repr(sample).encode() + encode_png(pixels))
    assert digest.hexdigest() == "9ad0bf5d23eeea29b53723f7b6e8829a17eacda1deb6e7a8e3f3b1d9094c7cba"


def test_lengths_digits_and_fonts_are_nearly_uniform(rendered):
    lengths = Counter(len(sample.label) for sample, _ in rendered)
    assert set(lengths) == set(range(1, 9))
    assert min(lengths.values()) > 45
    digits = Counter("".join(sample.label for sample, _ in rendered))
    assert len(digits) == 10
    assert min(digits.values()) > 200
    assert len({sample.font for sample, _ in rendered}) == len(FONTS)


def test_font_sizes_are_12_to_38_and_decrease_with_the_label_length(rendered):
    sizes = {}
    for sample, _ in rendered:
        sizes.setdefault(len(sample.label), []).append(sample.font_size)
    averages = [np.mean(sizes[length]) for length in range(1, 9)]
    assert averages == sorted(averages, reverse=True)
    assert 12 <= min(map(min, sizes.values())) <= 14
    assert max(sizes[1]) == 38


def test_two_thirds_are_augmented_and_text_is_black_to_grey(rendered):
    assert 0.6 < np.mean([sample.augmented for sample, _ in rendered]) < 0.75
    levels = [sample.text_color for sample, _ in rendered]
    assert all(red == green == blue for red, green, blue in levels)
    assert min(levels)[0] < 5
    assert 80 < max(levels)[0] <= 110


def test_text_is_inside_the_image_and_darker_than_its_surroundings(rendered):
    for sample, pixels in rendered:
        assert pixels.shape == (64, 128, 3)
        left, top = sample.text_position
        assert 2 <= left < 126
        assert 2 <= top < 62
        window = pixels[top : top + sample.font_size // 2, left : left + sample.font_size // 2].astype(int)
        assert np.percentile(window, 5) < pixels.mean() - 20


def test_lengths_and_characters_of_any_vocabulary_are_nearly_uniform():
    found = labels(Vocabulary(tuple("ABCDE"), 12), 360)
    lengths = Counter(map(len, found))
    assert set(lengths) == set(range(1, 13))
    assert min(lengths.values()) > 15
    characters = Counter(character for label in found for character in label)
    assert set(characters) == set("ABCDE")
    assert min(characters.values()) > 0.8 * characters.total() / 5


@pytest.mark.parametrize(
    ("characters", "font"),
    [("WM", FONTS[-1]), ("កឈញណ", FONTS[-1]), ("lI|-.", DEJAVU_SANS), ("\ufdfa\ufdfb", DEJAVU_SANS)],
    ids=["wide letters", "consonants", "strokes without paper around them", "ligatures of whole sentences"],
)
def test_labels_of_24_characters_are_inside_the_image(characters, font):
    vocabulary = Vocabulary(tuple(characters), 24)
    widths = []
    for number in range(60):
        sample, pixels = render_sample([font], vocabulary, 0, 0, number)
        if len(sample.label) > 20 and not sample.augmented:
            left, top = sample.text_position
            assert left >= 2
            assert top >= 2
            ink = pixels.astype(int).sum(axis=2) <= 3 * sample.text_color[0] + 60
            widths.append(np.flatnonzero(ink.any(axis=0)).max())
    assert widths
    assert max(widths) < 126


@pytest.mark.parametrize("character", ["|", "-", ".", "█"])
def test_stroke_without_paper_around_it_is_darker_than_the_image(character):
    for number in range(20):
        sample, pixels = render_sample([DEJAVU_SANS], Vocabulary((character,), 1), 0, 0, number)
        left, top = sample.text_position
        assert pixels[top : top + 3, left : left + 3].mean() < pixels.mean() - 20


def test_long_labels_are_smaller_but_vary_in_size():
    vocabulary = Vocabulary(tuple("0123456789"), 12)
    sizes = {}
    for number in range(400):
        sample = render_sample([DEJAVU_SANS], vocabulary, 0, 0, number)[0]
        sizes.setdefault(len(sample.label), []).append(sample.font_size)
    averages = [np.mean(sizes[length]) for length in (8, 9, 10, 12)]
    assert averages == sorted(averages, reverse=True)
    assert max(sizes[9]) - min(sizes[9]) >= 5


@pytest.mark.parametrize("characters", ["ABCDEFGHIJKLMNOPQRSTUVWXYZ", "កខគឃងចឆជឈញដឋឌឍណតថទធនបផពភមយរលវសហឡអ"])
def test_twelve_letters_have_a_legible_size(characters):
    vocabulary = Vocabulary(tuple(characters), 12)
    samples = [render_sample(FONTS, vocabulary, 0, 0, number)[0] for number in range(200)]
    assert min(sample.font_size for sample in samples if len(sample.label) == 12) >= 10


def test_marks_follow_bases_and_labels_are_read_as_the_same_characters():
    clusters = Vocabulary(("ក", "ខ", "ា", "ិ", "្ខ", "ក្ខ"), 6)  # ក and ្ខ together are read as ក្ខ
    found = labels(clusters, 150)
    assert {character for label in found for character in label} == set(clusters.characters)
    assert not any(is_mark(label[0]) for label in found)
    assert not any(is_mark(one) and is_mark(two) for label in found for one, two in pairwise(label))
    composed = Vocabulary(("e", "\u0301"), 4)  # NFC would compose them to a third character
    assert {"".join(label) for label in labels(composed, 40)} == {"e", "ee", "eee", "eeee"}


def test_shaped_label_is_a_number_of_clusters():
    vocabulary = Vocabulary(tuple(split_characters("ក្ក ខ្ម ស្ត្រី កា")), 8)
    assert {len(label) for label in labels(vocabulary, 100)} == set(range(1, 9))


def test_designs_are_equally_frequent():
    counts = Counter(render_sample([*FONTS, DEJAVU_SANS], Vocabulary(("A",), 1), 0, 0, n)[0].font for n in range(300))
    assert 110 < counts["DejaVuSans"] < 190  # one font of 23, but one design of two
    assert len(counts) > 20
