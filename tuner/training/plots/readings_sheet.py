"""Images with what they say and what was read, the worst readings first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tuner.data.vocabulary import decode_label
from tuner.training.plots.canvas import FAINT, GREEN, GRID, RED, Canvas

MOST_SHOWN = 24
_COLUMNS = 4
_IMAGE_WIDTH, _IMAGE_HEIGHT = 128, 64
_CARD_WIDTH, _CARD_HEIGHT, _MARGIN, _TITLE = 232, 132, 12, 40

Rows = npt.NDArray[np.integer]


def read_wrong(rows: Rows, labels: Rows) -> npt.NDArray[np.bool_]:
    """Return which readings ``(N, L)`` say something else than labels ``(N, L)``, as ``(N,)``."""
    pairs = zip(rows, labels, strict=True)
    return np.fromiter((decode_label(row) != decode_label(label) for row, label in pairs), np.bool_, len(rows))


def worst_first(wrong: npt.NDArray[np.bool_], confidence: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """Return which readings are the worst, `MOST_SHOWN` at most.

    Wrong ones come first, and of them those that the model was most sure of; then right ones, least sure first.

    Args:
        wrong: Which readings are wrong, ``(N,)``.
        confidence: ``(N,)``, 0 to 1.
    """
    # Of equals the first is first.
    return np.lexsort((np.where(wrong, -confidence, confidence), ~wrong))[:MOST_SHOWN]


def draw_readings(
    images: npt.NDArray[np.uint8], rows: Rows, labels: Rows, confidence: Sequence[float], title: str
) -> bytes:
    """Draw images with truth, reading and confidence under each.

    Args:
        images: Grey, 0 black to 255 white, ``(N, 64, 128)``.
        rows: What was read, ``(N, L)``.
        labels: What is right, ``(N, L)``.
        confidence: Of each reading, 0 to 1, ``(N,)``.
        title: What the sheet shows, in ASCII.

    Returns:
        A PNG, four images a row.
    """
    lines = -(-len(images) // _COLUMNS)
    canvas = Canvas(_MARGIN + _COLUMNS * (_CARD_WIDTH + _MARGIN), _TITLE + lines * (_CARD_HEIGHT + _MARGIN))
    canvas.text((_MARGIN, _TITLE / 2), title, 15)
    for number, (image, row, label) in enumerate(zip(images, rows, labels, strict=True)):
        corner = (
            float(_MARGIN + number % _COLUMNS * (_CARD_WIDTH + _MARGIN)),
            float(_TITLE + number // _COLUMNS * (_CARD_HEIGHT + _MARGIN)),
        )
        _draw_card(canvas, corner, image, (decode_label(label), decode_label(row)), confidence[number])
    return canvas.png()


def _draw_card(
    canvas: Canvas,
    corner: tuple[float, float],
    image: npt.NDArray[np.uint8],
    texts: tuple[str, str],
    confidence: float,
) -> None:
    left, top = corner
    truth, reading = texts
    canvas.box(corner, (_CARD_WIDTH, _CARD_HEIGHT), outline=GRID)
    canvas.grey((left + (_CARD_WIDTH - _IMAGE_WIDTH) / 2, top + 6), image)
    below = top + 6 + _IMAGE_HEIGHT
    color = GREEN if truth == reading else RED
    for place, name, text, shown in ((18, "true", truth, FAINT), (44, "read", reading, color)):
        canvas.text((left + 10, below + place), name, 12, FAINT)
        canvas.text((left + 48, below + place), text or "(nothing)", 19 if text else 13, shown)
    canvas.text((left + _CARD_WIDTH - 10, below + 44), f"{confidence:.3f}", 12, FAINT, "rm")
