"""Loss and accuracy over the epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.training.history import EpochMetrics
from tuner.training.plots.canvas import BLUE, FAINT, GREEN, GRID, INK, ORANGE, Canvas, Point

_WIDTH, _HEIGHT = 960, 360
_TOP, _BOTTOM, _LEFT, _RIGHT = 52, 44, 62, 18
_SMALL, _LARGE = 13, 15


@dataclass(frozen=True)
class _Curve:
    metric: str
    text: str
    color: str
    width: float = 2.0


_LOSSES = (_Curve("train_loss", "train", ORANGE), _Curve("val_loss", "validation", BLUE))
_ACCURACIES = (
    _Curve("train_char_accuracy", "train char", ORANGE),
    _Curve("val_char_accuracy", "validation char", BLUE),
    _Curve("val_seq_accuracy", "validation seq", GREEN),
)


def draw_learning_curves(epochs: Sequence[EpochMetrics], best_epoch: int | None) -> bytes:
    """Draw loss and accuracies over the epochs, and which epoch was best.

    Args:
        epochs: Finished epochs in order, one at least.
        best_epoch: Of the best checkpoint, counted from 1; None if there is none.

    Returns:
        A PNG of 960 x 360 pixels.
    """
    canvas = Canvas(_WIDTH, _HEIGHT)
    for left, title, curves in ((0, "loss", _LOSSES), (_WIDTH // 2, "accuracy", _ACCURACIES)):
        values = [epoch.value(curve.metric) for curve in curves for epoch in epochs]
        finite = [value for value in values if math.isfinite(value)]
        top = 1.0 if title == "accuracy" else max(finite, default=1.0)
        _Panel(canvas, left, len(epochs), top or 1.0).draw(title, curves, epochs, best_epoch)
    return canvas.png()


class _Panel:
    """Half of the picture: axes from 0 up, and curves."""

    def __init__(self, canvas: Canvas, left: int, epochs: int, top: float) -> None:
        self._canvas = canvas
        self._left, self._right = left + _LEFT, left + _WIDTH // 2 - _RIGHT
        self._epochs = epochs
        self._step = nice_step(top, 5)
        self._highest = math.ceil(top / self._step - 1e-9) * self._step

    def draw(
        self, title: str, curves: Sequence[_Curve], epochs: Sequence[EpochMetrics], best_epoch: int | None
    ) -> None:
        self._draw_axes(title)
        if best_epoch is not None:
            x = self._at(best_epoch, 0.0)[0]
            self._canvas.dashed((x, _TOP), (x, _HEIGHT - _BOTTOM), FAINT)
            anchor = "rb" if best_epoch > self._epochs / 2 else "lb"
            self._canvas.text((x, _TOP - 3), f"best: {best_epoch}", 11, FAINT, anchor)
        x = float(self._right)
        for curve in reversed(curves):
            self._canvas.text((x, 16), curve.text, _SMALL, curve.color, "rm")
            x -= 9.5 + 7.2 * len(curve.text)
        for curve in curves:
            self._draw_curve(curve, epochs)

    def _draw_axes(self, title: str) -> None:
        canvas, bottom = self._canvas, _HEIGHT - _BOTTOM
        canvas.text((self._left, 16), title, _LARGE, INK)
        for number in range(round(self._highest / self._step) + 1):
            value = number * self._step
            _, y = self._at(1, value)
            canvas.line([(self._left, y), (self._right, y)], GRID)
            canvas.text((self._left - 8, y), f"{value:.4g}", _SMALL, FAINT, "rm")
        step = max(1, round(nice_step(self._epochs, 7)))
        for epoch in sorted({1, *range(step, self._epochs + 1, step)}):
            canvas.text((self._at(epoch, 0.0)[0], bottom + 12), str(epoch), _SMALL, FAINT, "mm")
        canvas.text(((self._left + self._right) / 2, _HEIGHT - 12), "epoch", _SMALL, FAINT, "mm")

    def _draw_curve(self, curve: _Curve, epochs: Sequence[EpochMetrics]) -> None:
        points = [
            self._at(epoch.epoch, epoch.value(curve.metric))
            for epoch in epochs
            if math.isfinite(epoch.value(curve.metric))
        ]
        self._canvas.line(points, curve.color, curve.width)
        if len(points) <= 60:
            for point in points:
                self._canvas.dot(point, curve.color)

    def _at(self, epoch: int, value: float) -> Point:
        share = (epoch - 1) / (self._epochs - 1) if self._epochs > 1 else 0.5
        height = _HEIGHT - _BOTTOM - _TOP
        inside = self._right - self._left - 16
        return self._left + 8 + share * inside, _HEIGHT - _BOTTOM - value / self._highest * height


def nice_step(length: float, most: int) -> float:
    """Return the smallest of 1, 2, 5, 10, ... and their tenths that divides a length into no more than `most` parts."""
    rough = length / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
