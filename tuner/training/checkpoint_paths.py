"""Where the checkpoints of a trial are; found without importing PyTorch."""

from __future__ import annotations

from pathlib import Path

BEST_CHECKPOINT = "best.pt"


def checkpoint_dir(trial_dir: Path) -> Path:
    """Return the folder of a trial's checkpoints."""
    return trial_dir / "checkpoints"


def best_checkpoint_path(trial_dir: Path) -> Path:
    """Return the checkpoint of a trial's best epoch; the file may be missing."""
    return checkpoint_dir(trial_dir) / BEST_CHECKPOINT
