import io
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tuner.data.vocabulary import KHMER_DIGITS, Vocabulary
from tuner.training.plots import (
    draw_confusion_matrix,
    draw_learning_curves,
    draw_readings,
    draw_text,
    most_confused,
    read_wrong,
    worst_first,
)

VOCABULARY = Vocabulary()

ORANGE, BLUE, GREEN, RED, FAINT = (217, 119, 6), (37, 99, 235), (22, 163, 74), (220, 38, 38), (100, 116, 139)


def decoded(png):
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(np.int64)


def near(plot, color):
    """Return a mask of the pixels with this colour; the tolerance covers the palette of a plot."""
    return (np.abs(plot - color).max(-1) < 24).astype(bool)


def metrics(losses, accuracies):
    return {
        "train_loss": losses,
        "val_loss": losses,
        "train_char_accuracy": accuracies,
        "val_char_accuracy": accuracies,
        "val_seq_accuracy": [accuracy / 2 for accuracy in accuracies],
    }


@pytest.mark.parametrize("count", [1, 2, 30, 200])
def test_learning_curves_have_the_same_size_for_any_number_of_epochs(count):
    rising = [(number + 1) / count for number in range(count)]
    plot = decoded(draw_learning_curves(metrics([2 - value for value in rising], rising), count))
    assert plot.shape == (360, 960, 3)
    for color in (BLUE, GREEN):
        assert near(plot[32:318, 540:], color).any()


def test_loss_and_accuracy_are_drawn_from_left_to_right():
    values = [number / 10 for number in range(11)]
    plot = decoded(draw_learning_curves(metrics([1 - value for value in values], values), None))
    for half, is_rising in ((plot[40:315, 70:465], False), (plot[40:315, 545:940], True)):
        rows, columns = np.nonzero(near(half, BLUE))
        left, right = rows[columns < 100].mean(), rows[columns > 300].mean()
        assert (right < left) == is_rising


def test_best_epoch_is_marked_by_a_line_in_both_halves():
    values = metrics([0.5] * 9, [0.5] * 9)

    def marks(best_epoch):
        halves = np.split(decoded(draw_learning_curves(values, best_epoch))[40:315], [480], axis=1)
        return [np.flatnonzero(near(half, FAINT).sum(0) > 80).mean() for half in halves if near(half, FAINT).any()]

    early, late = marks(2), marks(8)
    assert len(early) == len(late) == 2
    assert all(left + 100 < right for left, right in zip(early, late, strict=True))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_nonfinite_values_are_omitted(loss):
    with_gap = decoded(draw_learning_curves(metrics([2.0, loss, 1.0], [0.1, 0.2, 0.3]), None))
    assert near(with_gap[40:315, 70:465], BLUE).any()
    empty = decoded(draw_learning_curves(metrics([loss] * 3, [loss] * 3), None))
    assert empty.shape == (360, 960, 3)
    assert not near(empty[40:315], BLUE).any()


@pytest.mark.parametrize("loss", [0.0, 1e-30, 3e38])
def test_losses_of_any_magnitude_are_drawn(loss):
    plot = decoded(draw_learning_curves(metrics([loss, loss / 2], [0.0, 1.0]), 1))
    assert near(plot[36:320, 66:470], BLUE).any()


def cell(plot, true, read):
    """Return the colour of a cell, from its upper left corner outside the number."""
    return plot[81 + int(44.3 * true) + 6, 81 + int(44.3 * read) + 6]


def test_correct_readings_are_blue_and_confusions_red():
    counts = np.zeros((11, 11), np.int64)
    counts[2, 2], counts[5, 7], counts[3, 10], counts[10, 4] = 50, 9, 4, 4
    plot = decoded(draw_confusion_matrix(counts, KHMER_DIGITS))
    assert plot.shape == (580, 580, 3)
    assert near(cell(plot, 2, 2), BLUE)
    for true, read in ((5, 7), (3, 10), (10, 4)):
        assert near(cell(plot, true, read), RED), (true, read)
    assert cell(plot, 7, 5).min() > 235
    assert (cell(plot, 10, 10) > cell(plot, 7, 5)).any()


def test_confusion_matrix_rows_are_labelled_with_ten_different_khmer_digits():
    plot = decoded(draw_confusion_matrix(np.zeros((11, 11), np.int64), KHMER_DIGITS))
    labels = [plot[top : top + 40, 50:79] for top in (82 + int(44.3 * row) for row in range(10))]
    assert all((label < 128).any() for label in labels)
    ink = [np.argwhere((label < 128).all(-1)) for label in labels]
    # Missing glyphs would all be the same box.
    assert len({(pixels - pixels.min(0)).tobytes() for pixels in ink}) == 10


def test_large_matrix_shows_the_characters_with_the_most_errors_and_sums_the_others():
    counts = np.diag(np.full(101, 1000))
    counts[-1, -1] = 0
    for true in range(5, 95):
        counts[true, true + 1] = true
    characters = [chr(0x4E00 + number) for number in range(100)]
    assert most_confused(counts) == list(range(75, 95))
    plot = decoded(draw_confusion_matrix(counts, characters))
    first, size = int(0.14 * len(plot)) + 5, 0.84 * len(plot) / 22

    def colour(true, read):
        return plot[first + int(size * true), first + int(size * read)]

    assert all(colour(index, index)[2] > colour(index, index)[0] + 100 for index in range(20))  # blue
    # Of the other characters, only the confusions are counted.
    assert colour(20, 20)[0] > colour(20, 20)[2] + 20  # red
    assert colour(20, 0)[0] > colour(20, 0)[2]  # 74 read as 75
    assert colour(19, 20)[0] > colour(19, 20)[2]  # 94 read as 95
    assert colour(20, 5).min() > 235


@pytest.mark.parametrize("text", ["A", "Ж", "ក", "ក្ក", "ب"])
def test_text_is_drawn_with_a_font_that_has_its_characters(text):
    def ink(text):
        image = Image.new("L", (60, 60), 255)
        draw_text(ImageDraw.Draw(image), (30, 30), text, 24, "black", "mm")
        return image.tobytes()

    blank = Image.new("L", (60, 60), 255).tobytes()
    code_points = ink(" ".join(f"U+{ord(character):04X}" for character in text))
    assert len({blank, code_points, ink(text), ink("B"), ink("ខ")}) == 5


def test_character_without_a_font_is_written_as_its_code_point():
    images = []
    for text in ("\U0010fffd", "U+10FFFD"):
        images.append(Image.new("L", (200, 40), 255))
        draw_text(ImageDraw.Draw(images[-1]), (10, 20), text, 16, "black")
    assert images[0].tobytes() == images[1].tobytes()


def test_matplotlib_is_imported_for_the_first_figure_and_prints_nothing_without_a_home_folder(tmp_path):
    code = """
import sys
from tuner.training.plots import draw_learning_curves
assert "matplotlib" not in sys.modules
draw_learning_curves(dict.fromkeys(sys.argv[1:], [0.5]), 1)
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    (tmp_path / "file").touch()
    missing_folders = {name: str(tmp_path / "file" / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *metrics([], [])],
        env={**{name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}, **missing_folders},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def rows_of(*texts):
    return np.array([VOCABULARY.encode(text) for text in texts])


@pytest.mark.parametrize(
    ("wrong", "confidence", "order"),
    [
        ([False, True, False, True], [0.9, 0.2, 0.4, 0.8], [3, 1, 2, 0]),
        ([False, False, False], [0.5, 0.5, 0.1], [2, 0, 1]),
        ([True, True], [0.5, 0.5], [0, 1]),
        ([], [], []),
    ],
    ids=["wrong before correct, by falling confidence", "correct by rising confidence", "equal in order", "none"],
)
def test_worst_readings_come_first(wrong, confidence, order):
    assert list(worst_first(np.array(wrong, np.bool_), np.array(confidence))) == order


def test_at_most_one_sheet_of_readings_is_selected():
    assert len(worst_first(np.zeros(1000, np.bool_), np.random.default_rng(0).random(1000))) == 24


def test_reading_is_wrong_if_it_differs_before_the_end_mark():
    read = rows_of("១២", "១២", "១")
    read[1, 3:] = 5  # positions after the end mark are ignored
    assert list(read_wrong(read, rows_of("១២", "១២", "១២"), VOCABULARY)) == [False, False, True]


@pytest.mark.parametrize("count", [1, 4, 24])
def test_sheet_shows_correct_readings_green_and_wrong_ones_red(count):
    images = np.random.default_rng(0).integers(0, 2, (count, 64, 128), dtype=np.uint8) * 255
    labels, read = rows_of(*["១២៣"] * count), rows_of(*["១២៣"] * count)
    read[0] = VOCABULARY.encode("១២៤៤")
    plot = decoded(draw_readings(images, read, labels, [0.5] * count, "sheet", VOCABULARY))
    assert np.array_equal(plot[46:110, 64:192, 0] > 128, images[0] > 128)
    first, others = plot[110:172, 12:244], plot[110:172, 256:]
    assert near(first, RED).any()
    assert not near(first, GREEN).any()
    assert near(others, GREEN).any() == (count > 1)
