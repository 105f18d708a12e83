"""The learning curves: loss and accuracy over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuner.training.plots.figure import BLUE, FAINT, GREEN, GRID, INK, ORANGE, figure_png, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOSSES = {"train_loss": ("train", ORANGE), "val_loss": ("validation", BLUE)}
_ACCURACIES = {
    "train_char_accuracy": ("train char", ORANGE),
    "val_char_accuracy": ("validation char", BLUE),
    "val_seq_accuracy": ("validation seq", GREEN),
}
# With more epochs, markers would hide the line.
_MAX_MARKERS = 60


def draw_learning_curves(metrics: Mapping[str, Sequence[float]], best_epoch: int | None) -> bytes:
    """Draw loss and accuracies over the epochs, and mark the best epoch.

    Args:
        metrics: The values per epoch, keyed by metric name, for at least one epoch. Values that are not finite are
            omitted.
        best_epoch: Epoch of the best checkpoint, counted from 1; None before the first such checkpoint.

    Returns:
        A PNG of 960 x 360 pixels.
    """
    figure = new_figure(960, 360)
    losses, accuracies = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.13, top=0.9, wspace=0.18)
    for axes, title, curves in ((losses, "loss", _LOSSES), (accuracies, "accuracy", _ACCURACIES)):
        for name, (label, color) in curves.items():
            _draw_curve(axes, metrics[name], label, color)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=FAINT, linestyle="--", linewidth=1, label=f"best: {best_epoch}")
        _set_up(axes, title, len(metrics["train_loss"]))
    accuracies.set_ylim(0, 1)
    losses.set_ylim(bottom=0)
    return figure_png(figure)


def _draw_curve(axes: Axes, values: Sequence[float], label: str, color: str) -> None:
    epochs = [epoch for epoch, value in enumerate(values, start=1) if math.isfinite(value)]
    marker = "." if len(epochs) <= _MAX_MARKERS else ""
    # Not clipped, because an accuracy of 1 is on the edge of the axes.
    axes.plot(epochs, [values[epoch - 1] for epoch in epochs], color=color, marker=marker, label=label, clip_on=False)


def _set_up(axes: Axes, title: str, epochs: int) -> None:
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel(title, color=INK)
    axes.set_xlim(0.5, epochs + 0.5)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.tick_params(colors=FAINT, length=0)
    axes.grid(axis="y", color=GRID)
    axes.spines[:].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize="small", columnspacing=1)
