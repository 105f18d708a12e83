"""Which digits are taken for which, as a table of coloured cells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.vocabulary import DIGITS
from tuner.training.plots.canvas import FAINT, INK, Canvas

_CELL, _LEFT, _TOP, _MARGIN = 44, 84, 84, 12
_RIGHT_COLOR, _WRONG_COLOR = np.array([37, 99, 235]), np.array([220, 38, 38])
# A share of a hundredth is to be seen already.
_STRENGTH = 0.35


def draw_confusion_matrix(counts: npt.NDArray[np.int64]) -> bytes:
    """Draw how often each digit was read as which.

    Args:
        counts: ``(11, 11)``: true digit or none there, then read digit or missed, as `digit_confusion` counts.

    Returns:
        A PNG: rows are true digits, columns read ones. Colours go by the share of the row.
    """
    size = len(counts)
    canvas = Canvas(_LEFT + size * _CELL + _MARGIN, _TOP + size * _CELL + _MARGIN)
    middle = size * _CELL / 2
    canvas.text((_LEFT + middle, 20), "read", 15, FAINT, "mm")
    canvas.rotated_text((18, _TOP + middle), "true", 15, FAINT)
    for place in range(size):
        at = (place + 0.5) * _CELL
        is_digit = place < len(DIGITS)
        canvas.text((_LEFT + at, _TOP - 24), DIGITS[place] if is_digit else "missed", 22 if is_digit else 12, INK, "mm")
        canvas.text((_LEFT - 12, _TOP + at), DIGITS[place] if is_digit else "none", 22 if is_digit else 12, INK, "rm")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for true in range(size):
        for read in range(size):
            if (true, read) != (len(DIGITS), len(DIGITS)):
                _draw_cell(canvas, (true, read), int(counts[true, read]), float(shares[true, read]))
    return canvas.png()


def _draw_cell(canvas: Canvas, place: tuple[int, int], count: int, share: float) -> None:
    true, read = place
    corner = (_LEFT + read * _CELL, _TOP + true * _CELL)
    color = _RIGHT_COLOR if true == read else _WRONG_COLOR
    strength = share**_STRENGTH if true != read else share
    red, green, blue = (int(part) for part in (255 - (255 - color) * strength).round())
    canvas.box(corner, (_CELL - 1, _CELL - 1), fill=(red, green, blue) if count else "#f8fafc")
    if count:
        middle = (corner[0] + _CELL / 2, corner[1] + _CELL / 2)
        shown = str(count) if count < 10_000 else f"{count / 1000:.0f}k"
        canvas.text(middle, shown, 14, "white" if strength > 0.55 else INK, "mm")
