"""What a training leaves behind for people: TensorBoard, ``metrics.jsonl``, a log file and its configuration."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import yaml

from search_spaces import TrainingConfig
from tuner.training.history import METRIC_NAMES, EpochMetrics

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
        self,
        folder: Path,
        config: TrainingConfig,
        history: Iterable[EpochMetrics],
        *,
        parameters: int,
        steps_per_epoch: int,
    ) -> None:
        """Open the files of an experiment.

        Args:
            folder: The experiment's folder.
            config: What is trained.
            history: Epochs that an interrupted training finished; whatever was written beyond them is dropped.
            parameters: Trainable parameters of the model.
            steps_per_epoch: Training steps of an epoch.
        """
        finished = list(history)
        self._metrics_path = folder / "metrics.jsonl"
        self._metrics_path.write_text("".join(map(_metrics_line, finished)), encoding="utf-8")
        self._curves = _Curves(folder / "tensorboard", finished, steps_per_epoch) if config.use_tensorboard else None
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call starts the measurement
        if self._curves is not None and not finished:
            self._curves.epochs.add_scalar("model/parameters", parameters, 0)

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Record a training step, counted over all epochs."""
        if self._curves is not None:
            self._curves.steps.add_scalar("loss/train_step", loss, step)
            self._curves.steps.add_scalar("learning_rate_step", learning_rate, step)

    def epoch(self, metrics: EpochMetrics) -> None:
        """Record a finished epoch."""
        with self._metrics_path.open("a", encoding="utf-8") as file:
            file.write(_metrics_line(metrics))
        if self._curves is not None:
            self._curves.add(metrics)

    def system_use(self) -> tuple[float, float]:
        """Return resident memory in MiB and CPU use in per cent of a core since the last call."""
        return self._process.memory_info().rss / 2**20, self._process.cpu_percent()

    def close(self) -> None:
        """Close the files."""
        if self._curves is not None:
            self._curves.close()


class _Curves:
    """An experiment's TensorBoard files.

    TensorBoard drops, by number, what was written beyond an interruption. Steps count faster than epochs, so they have
    files of their own, in ``steps``.
    """

    def __init__(self, path: Path, history: list[EpochMetrics], steps_per_epoch: int) -> None:
        # A second of imports that a run without it need not wait for.
        from torch.utils.tensorboard import SummaryWriter

        finished = len(history)
        if not finished:
            for file in path.rglob("events.out.tfevents.*"):  # of an attempt that never ended an epoch
                file.unlink()
        self.epochs = SummaryWriter(str(path), purge_step=finished or None)
        self.steps = SummaryWriter(str(path / "steps"), purge_step=finished * steps_per_epoch + 1 if finished else None)
        if finished:  # its checkpoint may be all that was written of it
            self.add(history[-1])

    def add(self, metrics: EpochMetrics) -> None:
        for name, tag in _TAGS.items():
            self.epochs.add_scalar(tag, metrics.value(name), metrics.epoch)
        self.epochs.flush()
        self.steps.flush()

    def close(self) -> None:
        self.epochs.close()
        self.steps.close()


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


def read_metrics(folder: Path) -> list[EpochMetrics]:
    """Return the finished epochs that an experiment's ``metrics.jsonl`` has; a half-written line is left out."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
    return [EpochMetrics(**json.loads(line)) for line in lines if line.endswith("}\n")]


def _config_yaml(fields: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True)
    return "# The effective configuration of this training: every field, also those left at their default.\n" + text


def _metrics_line(metrics: EpochMetrics) -> str:
    return json.dumps(asdict(metrics)) + "\n"
