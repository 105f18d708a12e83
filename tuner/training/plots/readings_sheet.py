"""A sheet of images with their labels and readings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tuner.data.vocabulary import Vocabulary
from tuner.training.plots.figure import FAINT, GREEN, GRID, INK, RED, to_png
from tuner.training.plots.text import draw_text

MAX_SHOWN = 24
_COLUMNS = 4
_CARD_WIDTH, _CARD_HEIGHT, _MARGIN, _TITLE = 232, 132, 12, 40

Rows = npt.NDArray[np.integer]


def read_wrong(rows: Rows, labels: Rows, vocabulary: Vocabulary) -> npt.NDArray[np.bool_]:
    """Return a mask ``(N,)`` of the readings ``(N, L)`` that differ from their labels ``(N, L)``."""
    texts, truths = (map(vocabulary.decode, values.tolist()) for values in (rows, labels))
    return np.fromiter((text != truth for text, truth in zip(texts, truths, strict=True)), np.bool_, len(rows))


def worst_first(wrong: npt.NDArray[np.bool_], confidence: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """Return the indices of the worst readings, at most `MAX_SHOWN`.

    Wrong readings come first, in order of falling confidence; then correct readings, in order of rising confidence.

    Args:
        wrong: Mask of the wrong readings, ``(N,)``.
        confidence: Confidence of each reading, ``(N,)``, 0 to 1.
    """
    # `lexsort` is stable: readings with equal confidence keep their order.
    return np.lexsort((np.where(wrong, -confidence, confidence), ~wrong))[:MAX_SHOWN]


def draw_readings(
    images: npt.NDArray[np.uint8],
    rows: Rows,
    labels: Rows,
    confidence: Sequence[float],
    title: str,
    vocabulary: Vocabulary,
) -> bytes:
    """Draw images, each with its label, reading and confidence.

    Args:
        images: Grey, 0 black to 255 white, ``(N, 64, 128)``.
        rows: Predicted label sequences, ``(N, L)``.
        labels: Ground-truth label sequences, ``(N, L)``.
        confidence: Confidence of each reading, 0 to 1, ``(N,)``.
        title: Title of the sheet.
        vocabulary: The vocabulary of the label sequences.

    Returns:
        A PNG with four images per row.
    """
    lines = -(-len(images) // _COLUMNS)
    size = (_MARGIN + _COLUMNS * (_CARD_WIDTH + _MARGIN), _TITLE + lines * (_CARD_HEIGHT + _MARGIN))
    sheet = Image.new("RGB", size, "white")
    draw_text(ImageDraw.Draw(sheet), (_MARGIN, _TITLE // 2), title, 15, INK)
    for number, (image, row, label) in enumerate(zip(images, rows, labels, strict=True)):
        truth, reading = (vocabulary.decode(classes.tolist()) for classes in (label, row))
        card = _draw_card(image, truth, reading, confidence[number])
        line, column = divmod(number, _COLUMNS)
        sheet.paste(card, (_MARGIN + column * (_CARD_WIDTH + _MARGIN), _TITLE + line * (_CARD_HEIGHT + _MARGIN)))
    return to_png(sheet)


def _draw_card(image: npt.NDArray[np.uint8], truth: str, reading: str, confidence: float) -> Image.Image:
    card = Image.new("RGB", (_CARD_WIDTH, _CARD_HEIGHT), "white")
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, _CARD_WIDTH - 1, _CARD_HEIGHT - 1), outline=GRID)
    card.paste(Image.fromarray(image), ((_CARD_WIDTH - image.shape[1]) // 2, 6))
    verdict = GREEN if truth == reading else RED
    for y, name, text, color in ((88, "true", truth, FAINT), (114, "read", reading, verdict)):
        draw_text(draw, (10, y), name, 12, FAINT)
        draw_text(draw, (48, y), text or "(nothing)", _text_size(text), color)
    draw_text(draw, (_CARD_WIDTH - 10, 114), f"{confidence:.3f}", 12, FAINT, "rm")
    return card


def _text_size(text: str) -> int:
    """Return the size in pixels at which a text of up to 24 characters fits beside its confidence."""
    return 13 if not text or len(text) > 12 else 19
