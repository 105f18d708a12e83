"""Checkpoints: written whole or not at all, and never trusted unread.

A checkpoint is an ordinary PyTorch file with the SHA-256 of its content in the zip archive's comment, so other tools
can load it and we notice damage that `torch.load` does not (it skips the zip's own checksums).
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
from search_spaces.diagnostics.atomic_files import write_bytes
from search_spaces.files.regular_files import read_bytes
from tuner.training.checkpoint_paths import BEST_CHECKPOINT
from tuner.training.out_of_memory import is_out_of_memory

log = logging.getLogger(__name__)

_RESUME_FILES = ("last.pt", "previous.pt")

# What loading raises for unexpected content with a correct digest.
WRONG_CONTENT = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, EOFError, ArithmeticError)
_COMMENT_BYTES = 64  # a SHA-256 in hexadecimal


class DamagedCheckpointError(ValueError):
    """A checkpoint's content is not what was written."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state dictionary atomically: a temporary file in the same folder, flushed to disk, then renamed."""
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, _with_digest(buffer.getvalue()), temporary=path.with_name(f".{path.name}.tmp"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU after checking its digest; nothing in it is executed.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedCheckpointError: The content is not what was written, or not written by this program.
    """
    sealed = read_bytes(path, most_bytes=16 * 10**9)
    content = sealed[: -_COMMENT_BYTES - 2] + b"\0\0"
    if _with_digest(content) != sealed:
        raise DamagedCheckpointError(
            f"{path}: the content does not match its SHA-256: damaged, or not written by khmer-tuner"
        )
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DamagedCheckpointError(
            f"{path}: there is more in it than tensors and plain values: not written by khmer-tuner"
        ) from error
    return state


def _with_digest(content: bytes) -> bytes:
    """Return a zip file's content with its SHA-256 as the archive's comment."""
    digest = hashlib.sha256(content).hexdigest().encode()
    # The last two bytes of a zip without comment are the comment's length.
    return content[:-2] + _COMMENT_BYTES.to_bytes(2, "little") + digest


def can_resume(path: Path) -> bool:
    """Return whether a checkpoint folder has a state to resume a training from, and its best checkpoint."""
    return (path / BEST_CHECKPOINT).exists() and any((path / name).exists() for name in _RESUME_FILES)


class CheckpointFolder:
    """The checkpoints of one experiment: `last` and `previous` while it runs, `best`, and numbered snapshots."""

    def __init__(self, path: Path, config: TrainingConfig) -> None:
        """Take the folder, made when the first checkpoint comes, and the settings with the rule for snapshots."""
        self.path = path
        self._config = config

    @property
    def best(self) -> Path:
        """Where the best epoch's model is."""
        return self.path / BEST_CHECKPOINT

    def save_epoch(self, epoch: int, state: dict[str, Any]) -> None:
        """Save the state after an epoch (1-based) as `last`; the one before stays as `previous`."""
        # The snapshot first: once `last` is there, nobody comes back to this epoch to complete it.
        if epoch % self._config.save_every_n_epochs == 0:
            save_checkpoint(self.path / f"epoch_{epoch:04d}.pt", state)
            for old in sorted(self.path.glob("epoch_*.pt"))[: -self._config.keep_n_checkpoints]:
                old.unlink()
        last = self.path / "last.pt"
        if last.exists():
            last.replace(self.path / "previous.pt")
        save_checkpoint(last, state)

    def load_last(self, restore: Callable[[dict[str, Any]], object] = lambda state: None) -> dict[str, Any] | None:
        """Return the newest state of an unfinished training that `restore` accepts, else None; delete damaged ones."""
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
                text = f"{self.path / name}: damaged: {damage}"
                log.warning("%s; going back %s", text, "one epoch" if older else "to the first epoch")
                # It must not become `previous` in place of the good one.
                (self.path / name).unlink()
        return None

    def delete_resume_files(self) -> None:
        """Remove what only an unfinished training needs."""
        for name in _RESUME_FILES:
            (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove every checkpoint of an earlier, abandoned attempt, and no other file."""
        for file in (self.best, *self.path.glob("epoch_*.pt")):
            file.unlink(missing_ok=True)
        self.delete_resume_files()
