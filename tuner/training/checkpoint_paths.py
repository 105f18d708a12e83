"""Paths of a trial's checkpoints, available without importing PyTorch."""

from __future__ import annotations

from pathlib import Path

BEST_CHECKPOINT = "best.pt"


def checkpoint_dir(trial_dir: Path) -> Path:
    """Return the checkpoint folder of a trial."""
    return trial_dir / "checkpoints"


def best_checkpoint_path(trial_dir: Path) -> Path:
    """Return the path of a trial's best checkpoint; the file need not exist."""
    return checkpoint_dir(trial_dir) / BEST_CHECKPOINT
