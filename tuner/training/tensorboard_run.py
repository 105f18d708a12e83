"""An experiment as one TensorBoard run: curves, readings and hyperparameters, continued after an interruption.

The step axis is the epoch for curves and readings of epochs, and the optimizer step for curves of training steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search_spaces import TrainingConfig
from search_spaces.training_config import WITHOUT_EFFECT
from tuner.training.event_file import EventFile
from tuner.training.history import METRIC_NAMES, EpochMetrics
from tuner.training.plots import CONFUSION_MATRIX, WORST_READINGS, Plots

TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "train_char_accuracy": "char_accuracy/train",
    "val_char_accuracy": "char_accuracy/val",
    "train_seq_accuracy": "seq_accuracy/train",
    "val_seq_accuracy": "seq_accuracy/val",
    "learning_rate": "learning_rate",
    "epoch_seconds": "system/epoch_seconds",
    "memory_mb": "system/memory_mb",
    "cpu_percent": "system/cpu_percent",
    "gpu_memory_mb": "system/gpu_memory_mb",
}
assert set(TAGS) == set(METRIC_NAMES)

_COMPARED = ("loss/val", "char_accuracy/val", "seq_accuracy/val")
_IMAGE_TAGS = {WORST_READINGS: "readings/worst", CONFUSION_MATRIX: "readings/confusion"}


class TensorBoardRun:
    """Writes the event files of one experiment."""

    def __init__(self, path: Path, config: TrainingConfig, history: Sequence[EpochMetrics], parameters: int) -> None:
        """Start a run in a folder, or resume it after its history; arguments as for `Recorder`."""
        self._plotted_epoch = 0
        if not history:
            for file in path.glob("events.out.tfevents.*"):  # from an attempt without a finished epoch
                file.unlink()
        self._file = EventFile(path)
        if history:  # the last epoch may have been saved as a checkpoint but not as an event
            self.add_epoch(history[-1])
        else:
            self._add_scalars({"model/parameters": parameters}, 0)
            self._add_hyperparameters(config)

    def add_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Add a training step, counted from 1 over all epochs."""
        self._add_scalars({"loss/train_step": loss, "learning_rate_step": learning_rate}, step - 1)

    def add_epoch(self, metrics: EpochMetrics) -> None:
        """Add a finished epoch."""
        values = {tag: metrics.value(name) for name, tag in TAGS.items()}
        self._add_scalars(values, metrics.epoch)

    def add_plots(self, plots: Plots, epoch: int) -> None:
        """Add the plots after an epoch if the epochs have doubled since the last plots, because images are large."""
        if epoch >= 2 * self._plotted_epoch:
            self._add_images(plots, epoch)

    def end(self, plots: Plots, epochs: int) -> None:
        """Add the final plots, and mark the run as finished."""
        if epochs > self._plotted_epoch:
            self._add_images(plots, epochs)
        *_, session_end = _hyperparameters({})
        self._file.add(0, session_end)

    def close(self) -> None:
        """Close the files."""
        self._file.close()

    def _add_scalars(self, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._file.add(step, summary)

    def _add_images(self, plots: Plots, epoch: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        for name, tag in _IMAGE_TAGS.items():
            if name in plots:
                image = Summary.Image(encoded_image_string=plots[name])
                summary = Summary(value=[Summary.Value(tag=tag, image=image)])
                self._file.add(epoch, summary)
        self._plotted_epoch = epoch

    def _add_hyperparameters(self, config: TrainingConfig) -> None:
        settings = {name: value for name, value in asdict(config).items() if name not in WITHOUT_EFFECT}
        supported = {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}
        *start, _ = _hyperparameters(supported)
        for summary in start:
            self._file.add(0, summary)


def _hyperparameters(settings: Mapping[str, bool | int | float | str]) -> tuple[Any, Any, Any]:
    """Return TensorBoard's three summaries: the compared metrics, the settings of a run, and its end."""
    from torch.utils.tensorboard.summary import hparams

    summaries: tuple[Any, Any, Any] = hparams(dict(settings), dict.fromkeys(_COMPARED, 0.0))  # type: ignore[no-untyped-call]
    return summaries
