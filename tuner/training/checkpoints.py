"""Checkpoint files, which are written atomically and verified before they are loaded.

A checkpoint is an ordinary PyTorch file, a zip archive, with the SHA-256 of its content in the archive's comment. Other
tools can load the file. `load_checkpoint` verifies the SHA-256, because `torch.load` skips the archive's own checksums
and so misses some damage.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from search_spaces import TrainingConfig
from search_spaces.diagnostics.disk import write_bytes
from search_spaces.files.regular_files import read_bytes
from tuner.training.device import is_out_of_memory
from tuner.training.history import BEST_CHECKPOINT

log = logging.getLogger(__name__)

_RESUME_FILES = ("last.pt", "previous.pt")

# Errors of loading or restoring a checkpoint whose digest is correct but whose content is unexpected.
WRONG_CONTENT = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, EOFError, ArithmeticError)
_COMMENT_BYTES = 64  # a SHA-256 in hexadecimal


class DamagedCheckpointError(ValueError):
    """A checkpoint is damaged or was not written by this program."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state dictionary atomically: to a temporary file in the same folder, then flushed and renamed."""
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, _with_digest(buffer.getvalue()), temporary=path.with_name(f".{path.name}.tmp"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Verify the digest of a checkpoint and load it to the CPU, without executing any code in the file.

    Raises:
        FileNotFoundError: The file does not exist.
        DamagedCheckpointError: The file is damaged, or was not written by this program.
    """
    stored = read_bytes(path, max_bytes=16 * 10**9)
    content = stored[: -_COMMENT_BYTES - 2] + b"\0\0"
    if _with_digest(content) != stored:
        raise DamagedCheckpointError(
            f"{path}: the content does not match its SHA-256; the file is damaged or was not written by khmer-tuner"
        )
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DamagedCheckpointError(
            f"{path}: found objects other than tensors and plain values; the file was not written by khmer-tuner"
        ) from error
    return state


def _with_digest(content: bytes) -> bytes:
    """Add the SHA-256 of a zip archive's content to the archive as its comment."""
    digest = hashlib.sha256(content).hexdigest().encode()
    # A zip archive without a comment ends with the comment's length, two bytes.
    return content[:-2] + _COMMENT_BYTES.to_bytes(2, "little") + digest


def can_resume(path: Path) -> bool:
    """Return whether a folder has the best checkpoint and a checkpoint from which training can resume."""
    return (path / BEST_CHECKPOINT).exists() and any((path / name).exists() for name in _RESUME_FILES)


class CheckpointFolder:
    """The checkpoints of one experiment: `best`, snapshots per epoch, and `last` and `previous` until training ends."""

    def __init__(self, path: Path, config: TrainingConfig) -> None:
        """Set the folder, which the first save creates, and the configuration, which has the snapshot settings."""
        self.path = path
        self.best = path / BEST_CHECKPOINT
        self._config = config

    def save_epoch(self, epoch: int, state: dict[str, Any]) -> None:
        """Save the state after an epoch (1-based) as `last`; keep the state of the epoch before as `previous`."""
        # Save the snapshot first: once `last` exists, a resumed training does not return to this epoch.
        if epoch % self._config.save_every_n_epochs == 0:
            save_checkpoint(self.path / f"epoch_{epoch:04d}.pt", state)
            for old in sorted(self.path.glob("epoch_*.pt"))[: -self._config.keep_n_checkpoints]:
                old.unlink()
        last = self.path / "last.pt"
        if last.exists():
            last.replace(self.path / "previous.pt")
        save_checkpoint(last, state)

    def load_last(self, restore: Callable[[dict[str, Any]], object] = lambda state: None) -> dict[str, Any] | None:
        """Load the newest checkpoint that `restore` accepts, or return None; delete the checkpoints that it rejects."""
        for name in _RESUME_FILES:
            try:
                state = load_checkpoint(self.path / name)
                restore(state)
                return state
            except FileNotFoundError:
                continue
            except WRONG_CONTENT as damage:
                if is_out_of_memory(damage):
                    raise
                older = name == "last.pt" and (self.path / "previous.pt").exists()
                reason = str(damage).removeprefix(f"{self.path / name}: ")
                text = f"{self.path / name}: training cannot resume from this checkpoint: {reason}"
                log.warning("%s; %s", text, "resuming one epoch earlier" if older else "restarting at epoch 1")
                # Otherwise the next epoch would replace the intact `previous` with the damaged `last`.
                (self.path / name).unlink()
        return None

    def delete_resume_files(self) -> None:
        """Delete the checkpoints that are needed only to resume training."""
        for name in _RESUME_FILES:
            (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all checkpoints of an earlier attempt, and no other file."""
        for file in (self.best, *self.path.glob("epoch_*.pt")):
            file.unlink(missing_ok=True)
        self.delete_resume_files()
