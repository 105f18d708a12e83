"""A sheet of images with their labels and readings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tuner.data.rendering.fonts import pinned_font_file
from tuner.data.vocabulary import decode_label
from tuner.training.plots.figure import FAINT, GREEN, GRID, INK, RED, to_png

MAX_SHOWN = 24
_COLUMNS = 4
_CARD_WIDTH, _CARD_HEIGHT, _MARGIN, _TITLE = 232, 132, 12, 40

Rows = npt.NDArray[np.integer]


def read_wrong(rows: Rows, labels: Rows) -> npt.NDArray[np.bool_]:
    """Return a mask ``(N,)`` of the readings ``(N, L)`` that differ from their labels ``(N, L)``."""
    pairs = zip(rows, labels, strict=True)
    return np.fromiter((decode_label(row) != decode_label(label) for row, label in pairs), np.bool_, len(rows))


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
    images: npt.NDArray[np.uint8], rows: Rows, labels: Rows, confidence: Sequence[float], title: str
) -> bytes:
    """Draw images, each with its label, reading and confidence.

    Args:
        images: Grey, 0 black to 255 white, ``(N, 64, 128)``.
        rows: Predicted label sequences, ``(N, L)``.
        labels: Ground-truth label sequences, ``(N, L)``.
        confidence: Confidence of each reading, 0 to 1, ``(N,)``.
        title: Title of the sheet, in ASCII.

    Returns:
        A PNG with four images per row.
    """
    lines = -(-len(images) // _COLUMNS)
    size = (_MARGIN + _COLUMNS * (_CARD_WIDTH + _MARGIN), _TITLE + lines * (_CARD_HEIGHT + _MARGIN))
    sheet = Image.new("RGB", size, "white")
    _write(ImageDraw.Draw(sheet), (_MARGIN, _TITLE // 2), title, 15, INK)
    for number, (image, row, label) in enumerate(zip(images, rows, labels, strict=True)):
        card = _draw_card(image, decode_label(label), decode_label(row), confidence[number])
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
        _write(draw, (10, y), name, 12, FAINT)
        _write(draw, (48, y), text or "(nothing)", 19 if text else 13, color)
    _write(draw, (_CARD_WIDTH - 10, 114), f"{confidence:.3f}", 12, FAINT, "rm")
    return card


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size_px: int, color: str, anchor: str = "lm"
) -> None:
    draw.text(at, text, font=_font(size_px), fill=color, anchor=anchor)


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(pinned_font_file()), size_px, layout_engine=ImageFont.Layout.BASIC)
