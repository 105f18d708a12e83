"""The disk usage of a study, by kind of file."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search_spaces.diagnostics.disk_errors import free_bytes
from studies.storage.output_folder import OutputFolder
from studies.storage.url import sqlite_path

_OF_A_TRIAL = ("checkpoints", "tensorboard", "logs")
_KINDS = ("artifacts", *_OF_A_TRIAL, "other")


@dataclass(frozen=True)
class DiskUsage:
    """Bytes on the disk.

    Attributes:
        database: The study's SQLite file, wherever it is; 0 if a server keeps the study.
        artifacts: What the dashboard shows beside the trials.
        checkpoints: Of all trials.
        tensorboard: Curves of all trials.
        logs: Of all trials.
        other: The rest of the output folder.
        free: Free space on the output folder's disk.
    """

    database: int
    artifacts: int
    checkpoints: int
    tensorboard: int
    logs: int
    other: int
    free: int

    @property
    def used(self) -> int:
        """Bytes of the whole study."""
        return self.database + self.artifacts + self.checkpoints + self.tensorboard + self.logs + self.other


def disk_usage(folder: OutputFolder) -> DiskUsage:
    """Return the disk usage of a study; files that appear or vanish meanwhile, or are not readable, may not count.

    Args:
        folder: The study's folder; links in it are not followed. It may be missing if a server keeps the study.
    """
    database = _database_files(folder)
    used: Counter[str] = Counter()
    for path, inside, size in _files(str(folder.path)):
        if path not in database:
            used[_kind(inside)] += size
    return DiskUsage(
        database=sum(map(_size, database)),
        **{kind: used[kind] for kind in _KINDS},
        free=free_bytes(folder.path),
    )


def _kind(inside: Sequence[str]) -> str:
    """Return what a file is for, by the folders that it is in, below the output folder."""
    if inside and inside[0] == "artifacts":
        return "artifacts"
    return inside[1] if len(inside) > 1 and inside[1] in _OF_A_TRIAL else "other"


def _files(path: str, inside: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Yield every file below a folder: path, names of the folders between, bytes."""
    try:
        entries = list(os.scandir(path))
    except OSError:  # it has just been removed, or is not readable
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, (*inside, entry.name))
        else:
            with contextlib.suppress(OSError):
                yield entry.path, inside, entry.stat(follow_symlinks=False).st_size


def _database_files(folder: OutputFolder) -> set[str]:
    """Return the study's SQLite file and its journal, which may not exist; nothing if a server keeps it."""
    owner = folder.owner()
    path = None if owner is None else sqlite_path(folder.storage_url(owner))
    return set() if path is None else {str(path), f"{path}-journal"}


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
