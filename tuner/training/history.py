"""What can be read about a training run without PyTorch: metrics, early stopping, result, checkpoint paths."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pydantic import TypeAdapter

from search_spaces import TrainingConfig
from search_spaces.diagnostics.disk import disk_error_text
from search_spaces.files.regular_files import read_bytes

BEST_CHECKPOINT = "best.pt"


def checkpoint_dir(trial_dir: Path) -> Path:
    """Return the checkpoint folder of a trial."""
    return trial_dir / "checkpoints"


def best_checkpoint_path(trial_dir: Path) -> Path:
    """Return the path of a trial's best checkpoint; the file need not exist."""
    return checkpoint_dir(trial_dir) / BEST_CHECKPOINT


@dataclass
class EarlyStopping:
    """The state of early stopping on one monitored metric.

    `best` changes at every improvement, however small. The patience restarts only at a value that is better by more
    than `min_delta` than the value of the last restart, so that tiny improvements do not prolong the training.

    Attributes:
        mode: ``max`` if higher is better, ``min`` if lower is.
        min_delta: An improvement must be larger than this to reset the patience; 0 or more.
        patience: Number of epochs without such an improvement after which training stops, 1 or more.
        best: Best value so far; None before the first epoch.
        best_epoch: First epoch (1-based) with the value `best`; 0 before the first epoch.
        waited: Number of epochs since the patience last restarted.
    """

    mode: str
    min_delta: float
    patience: int
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    _reference: float | None = None

    @classmethod
    def of(cls, config: TrainingConfig) -> EarlyStopping:
        """Create the initial state for a configuration."""
        return cls(config.early_stopping_mode, config.early_stopping_min_delta, config.early_stopping_patience)

    def update(self, epoch: int, value: float) -> bool:
        """Record the monitored value of an epoch (1-based); return whether the value is the best so far."""
        if self._reference is None or self._gain(value, self._reference) > self.min_delta:
            self._reference, self.waited = value, 0
        else:
            self.waited += 1
        if self.best is not None and self._gain(value, self.best) <= 0:
            return False
        self.best, self.best_epoch = value, epoch
        return True

    @property
    def should_stop(self) -> bool:
        """Whether `patience` epochs have passed without an improvement by more than `min_delta`."""
        return self.waited >= self.patience

    def _gain(self, value: float, other: float) -> float:
        return value - other if self.mode == "max" else other - value


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one epoch, stored as a line of ``metrics.jsonl``.

    Attributes:
        epoch: Number of the epoch, counted from 1.
        train_loss: Mean loss over the (augmented) training batches, measured during training.
        val_loss: Mean loss over the validation split after the epoch.
        train_char_accuracy: Fraction of correct label positions up to and including ``<EOS>``, 0 to 1.
        val_char_accuracy: Character accuracy on the validation split.
        train_seq_accuracy: Fraction of labels read without any error, 0 to 1.
        val_seq_accuracy: Sequence accuracy on the validation split.
        learning_rate: The learning rate of the last step; earlier steps of a warm-up epoch have lower rates.
        epoch_seconds: Wall time of training and validation.
        memory_mb: Resident memory of the process, in MiB.
        cpu_percent: CPU use of the process during the epoch; 100 is one core.
        gpu_memory_mb: Peak GPU memory of the process's tensors during the epoch, in MiB; 0 on a CPU.
    """

    epoch: int
    train_loss: float
    val_loss: float
    train_char_accuracy: float
    val_char_accuracy: float
    train_seq_accuracy: float
    val_seq_accuracy: float
    learning_rate: float
    epoch_seconds: float
    memory_mb: float
    cpu_percent: float
    gpu_memory_mb: float = 0.0

    def value(self, name: str) -> float:
        """Return a metric by name, for example `early_stopping_monitor`."""
        return float(getattr(self, name))


STORED_METRICS = TypeAdapter(EpochMetrics)
METRIC_NAMES = tuple(field.name for field in fields(EpochMetrics) if field.name != "epoch")


def metrics_line(metrics: EpochMetrics) -> str:
    """Format the line of an epoch in ``metrics.jsonl``."""
    return json.dumps(asdict(metrics)) + "\n"


def read_metrics(folder: Path) -> list[EpochMetrics]:
    """Read the finished epochs from ``metrics.jsonl``; skip damaged lines; return [] if the file is unreadable."""
    path = folder / "metrics.jsonl"
    try:
        text = read_bytes(path).decode("utf-8", "replace") if path.exists() else ""
    except OSError as error:
        log.warning("%s; the epochs of this trial are not shown", disk_error_text(error, path))
        text = ""
    epochs = []
    for line in text.splitlines(keepends=True):
        # A power cut can replace a line by zero bytes. Resuming the training rewrites the file.
        with contextlib.suppress(ValueError):
            if line.endswith("}\n"):
                epochs.append(STORED_METRICS.validate_json(line))
    return epochs


@dataclass(frozen=True)
class BestEpochScore:
    """Measurements of the best epoch after training, with the names of the trial's outcome; None if not measured."""

    unseen_char_accuracy: float | None = None
    unseen_seq_accuracy: float | None = None
    checkpoint_bytes: int | None = None
    images_per_s_batch_1: float | None = None
    images_per_s_batch_64: float | None = None


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training run.

    Attributes:
        why_ended: ``max_epochs``, ``early_stopped``, ``pruned`` (by the caller) or ``nonfinite_loss``.
        history: All finished epochs, including those before an interruption.
        best_epoch: Epoch with the best monitored metric; 0 if no epoch finished.
        parameters: Number of trainable parameters of the model.
        micro_batch_size: Maximum number of images per pass after memory ran out; None if it never ran out.
        threads: Number of PyTorch threads on the CPU; None if it changed between epochs, or on a GPU.
        best: Measurements of the best epoch after training.
    """

    why_ended: str
    history: tuple[EpochMetrics, ...]
    best_epoch: int
    parameters: int
    micro_batch_size: int | None = None
    threads: int | None = None
    best: BestEpochScore = BestEpochScore()
