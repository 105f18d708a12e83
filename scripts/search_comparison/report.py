"""Quality against spent epochs: medians and quartiles over the seeds, as tables, JSON data and a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from search_comparison.trainings import TrialResult
from tuner.analysis.paired_t_test import compare

QUALITIES = (0.8, 0.85, 0.9, 0.925, 0.95)
_QUARTILES = (25, 50, 75)


@dataclass(frozen=True)
class Curves:
    """The quality of one competitor against the epochs that it spent, one row per seed.

    Attributes:
        best: Best validation accuracy after each epoch, seeds x epochs.
        test_error: Fraction of test images that the chosen model reads wrong, seeds x epochs: the model of the ended
            trial with the best validation accuracy; 1 before the first trial has ended.
    """

    best: np.ndarray
    test_error: np.ndarray

    @classmethod
    def of(cls, searches: Sequence[Sequence[TrialResult]], budget: int) -> Curves:
        """Combine the searches of all seeds; a search that ended earlier keeps its last quality."""
        rows = [_curves(search, budget) for search in searches]
        return cls(np.array([best for best, _ in rows]), np.array([error for _, error in rows]))

    @property
    def final(self) -> float:
        """The median over the seeds of the best validation accuracy at the end of the budget."""
        return float(np.median(self.best[:, -1]))

    def median_epochs_to(self, quality: float) -> float | None:
        """Return the median over the seeds of the number of epochs after which a quality was reached.

        Of an even number of seeds, it is the lower one of the two middle numbers. None if fewer than half of the seeds
        have reached the quality.
        """
        reached = [np.flatnonzero(row >= quality) for row in self.best]
        median = statistics.median_low([float(epochs[0]) + 1 if len(epochs) else math.inf for epochs in reached])
        return median if math.isfinite(median) else None


def _curves(results: Sequence[TrialResult], budget: int) -> tuple[list[float], list[float]]:
    best, errors = [0.0], [1.0]
    chosen = -1.0
    for result in results:
        for value in result.values:
            best.append(max(best[-1], value))
            errors.append(errors[-1])
        if result.test_seq is not None and result.best > chosen:
            chosen, errors[-1] = result.best, 1 - result.test_seq
    # The first items are from before the first epoch; those after the last epoch equal the last ones.
    best, errors = (values + values[-1:] * budget for values in (best, errors))
    return best[1 : budget + 1], errors[1 : budget + 1]


def summary(curves: dict[str, Curves], presets: Curves, own: str) -> dict[str, Any]:
    """Summarise the comparison on one task as JSON data.

    Args:
        curves: The curves, keyed by competitor.
        presets: The curves of the presets alone, for the same seeds.
        own: Name of the own search; names of its variants start with it, and they are not compared.
    """
    others = {name: curve for name, curve in curves.items() if not name.startswith(own)}
    best_name = max(others, key=lambda name: others[name].final)
    target = others[best_name].final
    needed = {name: curve.median_epochs_to(target) for name, curve in curves.items()}
    own_needed, best_needed = needed[own], needed[best_name]
    before, after = presets.test_error[:, -1], curves[own].test_error[:, -1]
    reductions = [(1 - end / start, 0.0) for start, end in zip(before, after, strict=True) if start]
    reduction = compare(own, "best preset", reductions)
    return {
        "competitors": {name: _figures(curve) for name, curve in curves.items()},
        "best_competitor": best_name,
        "its_final_accuracy": target,
        "epochs_to_that_accuracy": needed,
        "ratio": own_needed / best_needed if own_needed and best_needed else None,
        "test_error": {"best_preset": before.tolist(), own: after.tolist()},
        "reduction": [reduction.difference, reduction.low, reduction.high],
    }


def _figures(curve: Curves) -> dict[str, Any]:
    points = [math.ceil(curve.best.shape[1] * part) - 1 for part in (0.4, 0.6, 0.8, 1.0)]

    def at_points(rows: np.ndarray) -> dict[int, list[float]]:
        return {point + 1: np.percentile(rows[:, point], _QUARTILES).tolist() for point in points}

    return {
        "best_val_char_accuracy": at_points(curve.best),
        "test_seq_error": at_points(curve.test_error),
        "epochs_to": {quality: curve.median_epochs_to(quality) for quality in QUALITIES},
        "final_per_seed": curve.best[:, -1].tolist(),
    }


def table(task: str, data: dict[str, Any]) -> str:
    """Format the summary of one task as Markdown: a table, and the sentences below it."""
    figures = data["competitors"]
    points = list(next(iter(figures.values()))["best_val_char_accuracy"])
    head = ["", *(f"val after {point}" for point in points), f"test seq error after {points[-1]}"]
    head += [f"epochs to {quality:g}" for quality in QUALITIES]
    rows = [head, ["---"] * len(head)]
    for name, figure in figures.items():
        row = [name, *(_quartiles(figure["best_val_char_accuracy"][point]) for point in points)]
        row.append(_quartiles(figure["test_seq_error"][points[-1]]))
        rows.append([*row, *(_whole(epochs) for epochs in figure["epochs_to"].values())])
    best, target = data["best_competitor"], data["its_final_accuracy"]
    ratio = "not reached" if data["ratio"] is None else f"{data['ratio']:.2f}"
    needed = ", ".join(f"{name} {_whole(epochs)}" for name, epochs in data["epochs_to_that_accuracy"].items())
    mean, low, high = data["reduction"]
    interval = "" if low is None else f" (95 % confidence interval {low:.0%} to {high:.0%})"
    lines = [
        f"## {task}",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"Best competitor: {best}. Epochs to its final median, {target:.4f}: {needed}; ratio {ratio}.",
    ]
    if mean is not None:
        lines.append(f"Test sequence error, reduction relative to the best preset: {mean:.0%}{interval}.")
    return "\n".join(lines)


def _quartiles(values: Sequence[float]) -> str:
    low, median, high = values
    return f"{median:.3f} ({low:.3f}-{high:.3f})"


def _whole(epochs: float | None) -> str:
    return "-" if epochs is None else f"{epochs:.0f}"


def plot(tasks: dict[str, dict[str, Curves]], path: Path) -> None:
    """Plot the median and the quartiles of each competitor: accuracy above, test error below, a column per task."""
    figure = Figure(figsize=(6.2 * len(tasks), 7.6), layout="constrained")
    axes = figure.subplots(2, len(tasks), squeeze=False, sharex="col")
    for column, (task, curves) in enumerate(tasks.items()):
        for color, (name, curve) in enumerate(curves.items()):
            for row, values in enumerate((curve.best, curve.test_error)):
                low, median, high = np.percentile(values, _QUARTILES, axis=0)
                epochs = np.arange(1, len(median) + 1)
                width = 2.4 if color == 0 else 1.3
                axes[row, column].plot(epochs, median, color=f"C{color}", linewidth=width, label=name)
                axes[row, column].fill_between(epochs, low, high, color=f"C{color}", alpha=0.1, linewidth=0)
        seeds = len(next(iter(curves.values())).best)
        axes[0, column].set(title=f"{task}: median and quartiles, seeds: {seeds}", ylabel="best val char accuracy")
        axes[1, column].set(xlabel="epochs spent, presets included", ylabel="test sequence error of the chosen model")
        axes[0, column].set_ylim(0.2, 1)
        axes[1, column].set_ylim(0, 1)
        for axis in axes[:, column]:
            axis.grid(alpha=0.3)
    axes[0, 0].legend(loc="lower right")
    figure.savefig(path, dpi=110)
