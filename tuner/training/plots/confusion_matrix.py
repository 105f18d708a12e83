"""The confusion matrix of the digits, as a table of coloured cells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.rendering.fonts import pinned_font_file
from tuner.data.vocabulary import DIGITS
from tuner.training.plots.figure import BLUE, FAINT, INK, RED, figure_png, new_figure

_EMPTY = "#f1f5f9"
# Exponent of the colour scale for confusions, so that 1 % is visible.
_STRENGTH = 0.35


def draw_confusion_matrix(counts: npt.NDArray[np.int64]) -> bytes:
    """Draw the confusion matrix of the digits.

    Args:
        counts: ``(11, 11)``: rows are true digits, then insertions; columns are read digits, then missed digits. The
            last cell is 0 and stays empty.

    Returns:
        A PNG of 580 x 580 pixels. The colour of a cell shows its fraction of the row's sum.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.font_manager import FontProperties

    size = len(counts)
    is_correct = np.eye(size, dtype=bool)
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    strength = np.where(is_correct, fractions, fractions**_STRENGTH)
    colors = 1 - (1 - np.where(is_correct[..., None], to_rgb(BLUE), to_rgb(RED))) * strength[..., None]
    colors[counts == 0] = to_rgb(_EMPTY)
    colors[-1, -1] = 1.0

    figure = new_figure(580, 580)
    axes = figure.add_axes((0.14, 0.02, 0.84, 0.84))
    axes.pcolormesh(colors, edgecolors="white", linewidth=1)
    axes.invert_yaxis()
    for true, read in np.argwhere(counts):
        count = counts[true, read]
        text = str(count) if count < 10_000 else f"{count / 1000:.0f}k"
        color = "white" if strength[true, read] > 0.55 else INK
        axes.text(read + 0.5, true + 0.5, text, color=color, ha="center", va="center")
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    khmer = FontProperties(fname=pinned_font_file(), size=16)
    ticks = np.arange(size) + 0.5
    axes.set_xticks(ticks, labels=[*DIGITS, "missed"], fontproperties=khmer)
    axes.set_yticks(ticks, labels=[*DIGITS, "none"], fontproperties=khmer, va="center")
    for label in (axes.get_xticklabels()[-1], axes.get_yticklabels()[-1]):
        label.set_fontsize(9)
    axes.set_xlabel("read", color=FAINT)
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true", color=FAINT)
    axes.spines[:].set_visible(False)
    return figure_png(figure)
