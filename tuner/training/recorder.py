"""What a training leaves behind for people: TensorBoard, ``metrics.jsonl``, a log file and its configuration."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml

from search_spaces import TrainingConfig
from tuner.training.history import METRIC_NAMES, EpochMetrics

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_TAGS = {
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
}
assert set(_TAGS) == set(METRIC_NAMES)


class Recorder:
    """Writes the epochs of one experiment; after an interruption it goes on where the history ends."""

    def __init__(
        self, folder: Path, config: TrainingConfig, history: Iterable[EpochMetrics], *, parameters: int
    ) -> None:
        """Open the files of an experiment.

        Args:
            folder: The experiment's folder.
            config: What is trained.
            history: Epochs that an interrupted training finished; whatever was written beyond them is dropped.
            parameters: Trainable parameters of the model.
        """
        finished = list(history)
        self._metrics_path = folder / "metrics.jsonl"
        self._metrics_path.write_text("".join(map(_metrics_line, finished)), encoding="utf-8")
        self._tensorboard = _open_tensorboard(folder, len(finished)) if config.use_tensorboard else None
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call starts the measurement
        if self._tensorboard is not None and not finished:
            self._tensorboard.add_scalar("model/parameters", parameters, 0)

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Record a training step, counted over all epochs."""
        if self._tensorboard is not None:
            self._tensorboard.add_scalar("loss/train_step", loss, step)
            self._tensorboard.add_scalar("learning_rate_step", learning_rate, step)

    def epoch(self, metrics: EpochMetrics) -> None:
        """Record a finished epoch."""
        with self._metrics_path.open("a", encoding="utf-8") as file:
            file.write(_metrics_line(metrics))
        if self._tensorboard is not None:
            for name, tag in _TAGS.items():
                self._tensorboard.add_scalar(tag, metrics.value(name), metrics.epoch)
            self._tensorboard.flush()

    def system_use(self) -> tuple[float, float]:
        """Return resident memory in MiB and CPU use in per cent of a core since the last call."""
        return self._process.memory_info().rss / 2**20, self._process.cpu_percent()

    def close(self) -> None:
        """Close the files."""
        if self._tensorboard is not None:
            self._tensorboard.close()


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """Let everything that this program logs also go to ``logs/training.log`` of an experiment."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "logs" / "training.log", encoding="utf-8")
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
        handler.close()


def write_config(folder: Path, config: TrainingConfig) -> Path:
    """Save the effective configuration, every field of it, beside the experiment's results; return the path."""
    path = folder / "configs" / "training_config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_config_yaml(asdict(config)), encoding="utf-8")
    return path


def _config_yaml(fields: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True)
    return "# The effective configuration of this training: every field, also those left at their default.\n" + text


def _metrics_line(metrics: EpochMetrics) -> str:
    return json.dumps(asdict(metrics)) + "\n"


def _open_tensorboard(folder: Path, finished_epochs: int) -> SummaryWriter:
    # A second of imports that a run without it need not wait for.
    from torch.utils.tensorboard import SummaryWriter

    path = folder / "tensorboard"
    purge_step = finished_epochs + 1 if finished_epochs else None
    if not finished_epochs and path.is_dir():
        for file in path.glob("events.out.tfevents.*"):  # of an attempt that never ended an epoch
            file.unlink()
    return SummaryWriter(str(path), purge_step=purge_step)
