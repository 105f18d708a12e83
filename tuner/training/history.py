"""The metrics of a training's epochs, and its result."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import TypeAdapter

from search_spaces.diagnostics.disk_errors import disk_error_text
from search_spaces.files.regular_files import read_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one epoch; a line of ``metrics.jsonl``.

    Attributes:
        epoch: 1-based number.
        train_loss: Mean loss over the (augmented) training batches, measured during training.
        val_loss: Mean loss over the validation split after the epoch.
        train_char_accuracy: Share of correct label positions up to and including ``<EOS>``, 0 to 1.
        val_char_accuracy: The same on the validation split.
        train_seq_accuracy: Share of labels read without any error, 0 to 1.
        val_seq_accuracy: The same on the validation split.
        learning_rate: The learning rate of the last step; in a warm-up, earlier steps have lower rates.
        epoch_seconds: Wall time of training and validation.
        memory_mb: Resident memory of the process, in MiB.
        cpu_percent: CPU use of the process during the epoch; 100 is one core.
        gpu_memory_mb: Peak GPU memory of its tensors during the epoch, in MiB; 0 on a CPU.
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


def read_metrics(folder: Path) -> list[EpochMetrics]:
    """Return the finished epochs from an experiment's ``metrics.jsonl``; half-written and damaged lines are skipped."""
    path = folder / "metrics.jsonl"
    try:
        text = read_bytes(path).decode("utf-8", "replace") if path.exists() else ""
    except OSError as error:
        log.warning("%s; its epochs are not shown", disk_error_text(error, path))
        text = ""
    epochs = []
    for line in text.splitlines(keepends=True):
        # A power cut can replace a line by zeros; a resumed training rewrites the file.
        with contextlib.suppress(ValueError):
            if line.endswith("}\n"):
                epochs.append(STORED_METRICS.validate_json(line))
    return epochs


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        why_ended: ``max_epochs``, ``early_stopped``, ``pruned`` (by the caller) or ``nonfinite_loss``.
        history: All finished epochs, including those before an interruption.
        best_epoch: Epoch with the best monitored metric; 0 if none finished.
        parameters: Trainable parameters of the model.
        micro_batch_size: The largest number of images per pass if memory ran out; None for whole batches.
        threads: Number of PyTorch threads in all epochs on the CPU; None if it changed, or on another device.
    """

    why_ended: str
    history: tuple[EpochMetrics, ...]
    best_epoch: int
    parameters: int
    micro_batch_size: int | None = None
    threads: int | None = None
