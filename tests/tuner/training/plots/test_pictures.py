from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tuner.data.vocabulary import encode_label
from tuner.training.history import EpochMetrics
from tuner.training.plots import draw_confusion_matrix, draw_learning_curves, draw_readings, read_wrong, worst_first

ORANGE, BLUE, GREEN, RED = (217, 119, 6), (37, 99, 235), (22, 163, 74), (220, 38, 38)


def opened(png: bytes) -> npt.NDArray[np.int64]:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(np.int64)


def near(picture: npt.NDArray[np.int64], color: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Where a picture has a colour, a little off included: it has a palette."""
    return (np.abs(picture - color).max(-1) < 24).astype(bool)


def epochs(losses: list[float], accuracies: list[float]) -> list[EpochMetrics]:
    return [
        EpochMetrics(number, loss, loss, accuracy, accuracy, accuracy, accuracy / 2, 1e-3, 1.0, 100.0, 100.0)
        for number, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), start=1)
    ]


@pytest.mark.parametrize("count", [1, 2, 30, 1000])
def test_curves_of_any_length_are_drawn_inside_the_picture(count: int) -> None:
    rising = [(number + 1) / count for number in range(count)]
    picture = opened(draw_learning_curves(epochs([2 - value for value in rising], rising), count))
    assert picture.shape == (360, 960, 3)
    for color in (BLUE, GREEN):
        assert near(picture[52:320, 480:], color).any()


def test_the_loss_falls_to_the_right_and_the_accuracy_rises() -> None:
    values = [number / 10 for number in range(11)]
    picture = opened(draw_learning_curves(epochs([1 - value for value in values], values), 11))
    for half, is_rising in ((picture[52:318, 62:460], False), (picture[52:318, 542:940], True)):
        rows, columns = np.nonzero(near(half, BLUE))
        left, right = rows[columns < 100].mean(), rows[columns > 300].mean()
        assert (right < left) == is_rising


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_an_epoch_without_a_finite_loss_leaves_a_gap(loss: float) -> None:
    picture = opened(draw_learning_curves(epochs([2.0, loss, 1.0], [0.1, 0.2, 0.3]), None))
    assert near(picture[52:320, :480], BLUE).any()
    assert opened(draw_learning_curves(epochs([loss], [0.0]), None)).shape == (360, 960, 3)


def test_a_digit_read_right_is_blue_and_one_taken_for_another_red() -> None:
    counts = np.zeros((11, 11), np.int64)
    counts[2, 2], counts[5, 7], counts[3, 10], counts[10, 4] = 50, 9, 4, 4
    picture = opened(draw_confusion_matrix(counts))

    def cell(true: int, read: int) -> npt.NDArray[np.int64]:
        return picture[84 + 44 * true + 3, 84 + 44 * read + 3]

    assert near(cell(2, 2), BLUE)
    for true, read in ((5, 7), (3, 10), (10, 4)):
        assert near(cell(true, read), RED), (true, read)
    assert cell(7, 5).min() > 240


def rows_of(*texts: str) -> npt.NDArray[np.uint8]:
    return np.array([encode_label(text) for text in texts])


@pytest.mark.parametrize(
    ("wrong", "confidence", "order"),
    [
        ([False, True, False, True], [0.9, 0.2, 0.4, 0.8], [3, 1, 2, 0]),
        ([False, False, False], [0.5, 0.5, 0.1], [2, 0, 1]),
        ([True, True], [0.5, 0.5], [0, 1]),
        ([], [], []),
    ],
    ids=["wrong ones first, the surest first", "then the least sure", "equal ones in order", "none"],
)
def test_the_worst_readings_come_first(wrong: list[bool], confidence: list[float], order: list[int]) -> None:
    assert list(worst_first(np.array(wrong, np.bool_), np.array(confidence))) == order


def test_no_more_than_a_sheet_of_them_is_picked() -> None:
    assert len(worst_first(np.zeros(1000, np.bool_), np.random.default_rng(0).random(1000))) == 24


def test_a_reading_is_wrong_if_it_says_something_else() -> None:
    read = rows_of("១២", "១២", "១")
    read[1, 3:] = 5  # what follows the end does not count
    assert list(read_wrong(read, rows_of("១២", "១២", "១២"))) == [False, False, True]


@pytest.mark.parametrize("count", [1, 4, 24])
def test_a_sheet_shows_images_with_right_readings_green_and_wrong_ones_red(count: int) -> None:
    images = np.random.default_rng(0).integers(0, 2, (count, 64, 128), dtype=np.uint8) * 255
    labels, read = rows_of(*["១២៣"] * count), rows_of(*["១២៣"] * count)
    read[0] = encode_label("១២៤៤")
    picture = opened(draw_readings(images, read, labels, [0.5] * count, "sheet"))
    assert np.array_equal(picture[46:110, 64:192, 0] > 128, images[0] > 128)
    first, others = picture[110:172, 12:244], picture[110:172, 256:]
    assert near(first, RED).any()
    assert not near(first, GREEN).any()
    assert near(others, GREEN).any() == (count > 1)
