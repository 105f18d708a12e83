"""The confusion matrix of the characters, as a table of coloured cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw

from tuner.training.plots.figure import BLUE, FAINT, INK, RED, figure_image, new_figure, to_png
from tuner.training.plots.text import draw_text

MAX_SHOWN = 20  # in the plot; more would be unreadable
_EMPTY = "#f1f5f9"
# Exponent of the colour scale for confusions, so that 1 % is visible.
_STRENGTH = 0.35
_LEFT, _TOP, _SIZE = 0.14, 0.14, 0.84  # of the table, as fractions of the figure

Counts = npt.NDArray[np.int64]


def draw_confusion_matrix(counts: Counts, characters: Sequence[str]) -> bytes:
    """Draw the confusion matrix of K characters: all, or the `MAX_SHOWN` with the most errors.

    Args:
        counts: ``(K + 1, K + 1)``: rows are true characters, then insertions; columns are read characters, then missed
            ones. The last cell is 0 and stays empty.
        characters: The K characters.

    Returns:
        A square PNG. The colour of a cell shows its fraction of the row's sum. If characters are left out, the row and
        the column "other" count their confusions, but not their correct readings.
    """
    from matplotlib.colors import to_rgb

    shown = most_confused(counts)
    names = [characters[index] for index in shown]
    correct_others = counts.trace() - counts.diagonal()[shown].sum()
    counts = _grouped(counts, shown)
    totals, size = counts.sum(1, keepdims=True), len(counts)
    if len(shown) < len(characters):
        names.append("other")
        counts[-2, -2] -= correct_others
    is_correct = np.diag(np.arange(size) < len(shown))
    fractions = counts / np.maximum(totals, 1)
    strength = np.where(is_correct, fractions, fractions**_STRENGTH)
    colors = 1 - (1 - np.where(is_correct[..., None], to_rgb(BLUE), to_rgb(RED))) * strength[..., None]
    colors[counts == 0] = to_rgb(_EMPTY)
    colors[-1, -1] = 1.0

    width = max(580, 40 * size)
    figure = new_figure(width, width)
    axes = figure.add_axes((_LEFT, 1 - _TOP - _SIZE, _SIZE, _SIZE))
    axes.pcolormesh(colors, edgecolors="white", linewidth=1)
    axes.invert_yaxis()
    for true, read in np.argwhere(counts):
        count = counts[true, read]
        text = str(count) if count < 10_000 else f"{count / 1000:.0f}k"
        color = "white" if strength[true, read] > 0.55 else INK
        axes.text(read + 0.5, true + 0.5, text, color=color, ha="center", va="center")
    axes.set_axis_off()
    image = figure_image(figure)
    draw = ImageDraw.Draw(image)
    left, top, cell = _LEFT * width, _TOP * width, _SIZE * width / size
    for number, (true_name, read_name) in enumerate(zip([*names, "none"], [*names, "missed"], strict=True)):
        middle = (number + 0.5) * cell
        size_px = 22 if number < len(shown) else min(12, int(cell / 3.3))
        draw_text(draw, (left + middle, top - 18), read_name, size_px, INK, "mm")
        draw_text(draw, (left - 8, top + middle), true_name, size_px, INK, "rm")
    draw_text(draw, (left + _SIZE * width / 2, 14), "read", 14, FAINT, "mm")
    draw_text(draw, (8, top + _SIZE * width / 2), "true", 14, FAINT, "lm")
    return to_png(image)


def most_confused(counts: Counts) -> list[int]:
    """Return the indices of the `MAX_SHOWN` characters with the most errors, in the order of the vocabulary."""
    errors = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    return sorted(np.argsort(-errors[:-1], kind="stable")[:MAX_SHOWN].tolist())


def _grouped(counts: Counts, shown: Sequence[int]) -> Counts:
    """Return the rows and columns of `shown`, the sum of the other characters if there are any, and the last one."""
    size = len(shown) + 1 + (len(shown) < len(counts) - 1)
    group = np.full(len(counts), size - 2)
    group[list(shown)], group[-1] = np.arange(len(shown)), size - 1
    grouped = np.zeros((size, size), np.int64)
    np.add.at(grouped, (group[:, None], group[None, :]), counts)
    return grouped
