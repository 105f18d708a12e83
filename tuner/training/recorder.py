"""The files that record a training run: TensorBoard events, ``metrics.jsonl``, log file and configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import yaml

from search_spaces import TrainingConfig
from search_spaces.diagnostics.disk import write_text
from search_spaces.files.regular_files import regular_file
from search_spaces.training_config import WITHOUT_EFFECT
from tuner.training.event_file import EventFile
from tuner.training.history import METRIC_NAMES, EpochMetrics, metrics_line
from tuner.training.plots import CONFUSION_MATRIX, WORST_READINGS, Plots

log = logging.getLogger(__name__)

CONFIG_FILE = "training_config.yaml"

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


class Recorder:
    """Records the steps, epochs and plots of one experiment in its files.

    TensorBoard's step is the epoch for metrics and plots of epochs, and the optimizer step for metrics of training
    steps.
    """

    def __init__(
        self, folder: Path, config: TrainingConfig, history: Sequence[EpochMetrics], *, parameters: int
    ) -> None:
        """Open the files of an experiment.

        Args:
            folder: The experiment's folder.
            config: The experiment's configuration.
            history: Finished epochs of an interrupted training; records of later epochs are discarded.
            parameters: Number of trainable parameters of the model.
        """
        self._metrics_path = folder / "metrics.jsonl"
        write_text(self._metrics_path, "".join(map(metrics_line, history)))
        self._folder, self._config, self._parameters = folder / "tensorboard", config, parameters
        self._open_events(history)
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call starts the measurement

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log a training step and write it to TensorBoard; steps are counted from 1 over all epochs."""
        log.info("step %d: loss %.4f, lr %.2e", step, loss, learning_rate)
        self._add_scalars({"loss/train_step": loss, "learning_rate_step": learning_rate}, step - 1)

    def discard_unfinished_epoch(self, history: Sequence[EpochMetrics]) -> None:
        """Discard the TensorBoard steps after the finished epochs, because training repeats these steps."""
        self.close()
        self._open_events(history)

    def epoch(self, metrics: EpochMetrics) -> None:
        """Append a finished epoch to ``metrics.jsonl`` and write it to TensorBoard."""
        with open(self._metrics_path, "a", encoding="utf-8", opener=regular_file) as file:
            file.write(metrics_line(metrics))
        self._add_epoch(metrics)

    def plots(self, plots: Plots, epoch: int) -> None:
        """Write plots to TensorBoard if the number of epochs has doubled since the last plots.

        Plots of every epoch would make the file too large.
        """
        if epoch >= 2 * self._plotted_epoch:
            self._add_images(plots, epoch)

    def ended(self, plots: Plots, epochs: int) -> None:
        """Write the final plots to TensorBoard, and mark the run as finished after this number of epochs."""
        if epochs > self._plotted_epoch:
            self._add_images(plots, epochs)
        if self._events is not None:
            *_, session_end = _hyperparameters({})
            self._events.add(0, session_end)

    def system_use(self) -> tuple[float, float]:
        """Return the resident memory in MiB, and the CPU use since the last call in per cent of a core."""
        return self._process.memory_info().rss / 2**20, self._process.cpu_percent()

    def close(self) -> None:
        """Close the files."""
        if self._events is not None:
            self._events.close()

    def _open_events(self, history: Sequence[EpochMetrics]) -> None:
        """Start the experiment's TensorBoard run, if it has one, or continue it after `history`."""
        self._plotted_epoch = 0
        self._events: EventFile | None = None
        if not self._config.use_tensorboard:
            return
        if not history:
            for file in self._folder.glob("events.out.tfevents.*"):  # from an attempt without a finished epoch
                file.unlink()
        self._events = EventFile(self._folder)
        if history:  # the last epoch may have a checkpoint but no event
            self._add_epoch(history[-1])
            return
        self._add_scalars({"model/parameters": self._parameters}, 0)
        settings = {name: value for name, value in asdict(self._config).items() if name not in WITHOUT_EFFECT}
        supported = {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}
        *start, _ = _hyperparameters(supported)
        for summary in start:
            self._events.add(0, summary)

    def _add_epoch(self, metrics: EpochMetrics) -> None:
        self._add_scalars({tag: metrics.value(name) for name, tag in TAGS.items()}, metrics.epoch)

    def _add_scalars(self, values: Mapping[str, float], step: int) -> None:
        if self._events is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
            self._events.add(step, summary)

    def _add_images(self, plots: Plots, epoch: int) -> None:
        if self._events is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            for name, tag in _IMAGE_TAGS.items():
                if name in plots:
                    image = Summary.Image(encoded_image_string=plots[name])
                    self._events.add(epoch, Summary(value=[Summary.Value(tag=tag, image=image)]))
        self._plotted_epoch = epoch


def _hyperparameters(settings: Mapping[str, bool | int | float | str]) -> tuple[Any, Any, Any]:
    """Create TensorBoard's hyperparameter summaries: compared metrics, settings of the run, and end of the run."""
    from torch.utils.tensorboard.summary import hparams

    summaries: tuple[Any, Any, Any] = hparams(dict(settings), dict.fromkeys(_COMPARED, 0.0))  # type: ignore[no-untyped-call]
    return summaries


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """Write log messages in a ``with`` block also to an experiment's ``logs/training.log``."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    path = folder / "logs" / "training.log"
    handler = logging.FileHandler(path, delay=True)
    handler.setStream(open(path, "a", encoding="utf-8", errors="backslashreplace", opener=regular_file))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("tuner")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        try:
            handler.close()
        except OSError as error:  # closing writes the buffered messages
            log.warning("%s: the last log messages cannot be written (%s); the training is not affected", path, error)


def write_config(folder: Path, config: TrainingConfig) -> Path:
    """Save the effective configuration, with all fields, in the experiment's folder; return the path."""
    path = folder / "configs" / CONFIG_FILE
    for directory in (folder, path.parent):  # without parents, so that a moved output folder is not created again
        directory.mkdir(exist_ok=True)
    write_text(path, config_yaml(config))
    return path


def config_yaml(config: TrainingConfig) -> str:
    """Format a configuration as YAML, including fields with default values."""
    text: str = yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
    return "# The effective configuration of this training: all fields, including those with default values.\n" + text
