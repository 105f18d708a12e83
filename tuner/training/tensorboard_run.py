"""The TensorBoard run of an experiment: curves, plots of readings, and hyperparameters.

TensorBoard's step is the epoch for metrics and plots of epochs, and the optimizer step for metrics of training steps.
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
        """Start a run in the folder `path`, or continue it after `history`; arguments as in `Recorder`."""
        self._plotted_epoch = 0
        if not history:
            for file in path.glob("events.out.tfevents.*"):  # from an attempt without a finished epoch
                file.unlink()
        self._file = EventFile(path)
        if history:  # the last epoch may have a checkpoint but no event
            self.add_epoch(history[-1])
        else:
            self._add_scalars({"model/parameters": parameters}, 0)
            self._add_hyperparameters(config)

    def add_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Write a training step's loss and learning rate to the event file; steps count from 1 over all epochs."""
        self._add_scalars({"loss/train_step": loss, "learning_rate_step": learning_rate}, step - 1)

    def add_epoch(self, metrics: EpochMetrics) -> None:
        """Write the metrics of a finished epoch to the event file."""
        values = {tag: metrics.value(name) for name, tag in TAGS.items()}
        self._add_scalars(values, metrics.epoch)

    def add_plots(self, plots: Plots, epoch: int) -> None:
        """Write plots to the event file if the number of epochs has doubled since the last plots.

        Plots of every epoch would make the file too large.
        """
        if epoch >= 2 * self._plotted_epoch:
            self._add_images(plots, epoch)

    def end(self, plots: Plots, epochs: int) -> None:
        """Write the final plots to the event file, and mark the run as finished."""
        if epochs > self._plotted_epoch:
            self._add_images(plots, epochs)
        *_, session_end = _hyperparameters({})
        self._file.add(0, session_end)

    def close(self) -> None:
        """Close the event file."""
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
    """Create TensorBoard's hyperparameter summaries: compared metrics, settings of the run, and end of the run."""
    from torch.utils.tensorboard.summary import hparams

    summaries: tuple[Any, Any, Any] = hparams(dict(settings), dict.fromkeys(_COMPARED, 0.0))  # type: ignore[no-untyped-call]
    return summaries
