from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tuner.data.vocabulary import DIGITS
from tuner.training.plots.canvas import Canvas
from tuner.training.plots.learning_curves import nice_step


def pixels(canvas: Canvas) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(canvas.png())).convert("L"))


def written(text: str) -> bytes:
    canvas = Canvas(40, 40)
    canvas.text((20, 20), text, 24, anchor="mm")
    return pixels(canvas).tobytes()


def test_khmer_digits_are_drawn_as_ten_different_digits() -> None:
    # U+E000 has no glyph: what is drawn for it is the box that stands for a missing letter.
    assert len({written(digit) for digit in DIGITS} | {written("\ue000")}) == 11


@pytest.mark.parametrize(("anchor", "half"), [("lm", "right"), ("rm", "left")])
def test_text_lies_beside_its_anchor(anchor: str, half: str) -> None:
    canvas = Canvas(100, 40)
    canvas.text((50, 20), "0.5", 16, anchor=anchor)
    dark = np.flatnonzero((pixels(canvas) < 128).any(0))
    assert (dark.min() >= 49) if half == "right" else (dark.max() <= 50)


def test_text_can_go_upwards() -> None:
    canvas = Canvas(60, 200)
    canvas.rotated_text((30, 100), "true digit", 16)
    rows, columns = np.nonzero(pixels(canvas) < 128)
    assert np.ptp(rows) > 3 * np.ptp(columns)
    assert abs(rows.mean() - 100) < 10


def test_an_image_keeps_its_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 2, (64, 128), dtype=np.uint8) * 255
    canvas = Canvas(140, 80)
    canvas.grey((6, 8), image)
    assert np.array_equal(pixels(canvas)[8:72, 6:134], image)


@pytest.mark.parametrize(
    ("length", "most", "step"), [(1.0, 5, 0.2), (2.3, 5, 0.5), (30, 7, 5), (0.004, 5, 0.001), (9.0, 10, 1.0), (7, 7, 1)]
)
def test_axes_are_divided_by_round_numbers(length: float, most: int, step: float) -> None:
    assert nice_step(length, most) == pytest.approx(step)
