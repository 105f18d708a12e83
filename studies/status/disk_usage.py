"""The disk usage of a study, per kind of file."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search_spaces.diagnostics.disk import free_bytes
from studies.storage.output_folder import OutputFolder
from studies.storage.url import sqlite_path

_TRIAL_KINDS = ("checkpoints", "tensorboard", "logs")
_KINDS = ("artifacts", *_TRIAL_KINDS, "other")


@dataclass(frozen=True)
class DiskUsage:
    """The disk usage of a study, in bytes.

    Attributes:
        database: The study's SQLite file, also if it is outside the output folder; 0 with a database server.
        artifacts: Artifacts of all trials, which the dashboard shows.
        checkpoints: Checkpoints of all trials.
        tensorboard: TensorBoard files of all trials.
        logs: Logs of all trials.
        other: All other files in the output folder.
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
        """The bytes that the study uses: the sum of all attributes except `free`."""
        return self.database + self.artifacts + self.checkpoints + self.tensorboard + self.logs + self.other


def disk_usage(folder: OutputFolder) -> DiskUsage:
    """Return the disk usage of a study, without files that are unreadable or are removed during the count.

    Args:
        folder: The study's output folder; symbolic links in it are not followed. It may be missing if the study is on a
            database server.
    """
    database = _database_files(folder)
    used: Counter[str] = Counter()
    for path, parents, size in _files(str(folder.path)):
        if path not in database:
            used[_kind(parents)] += size
    return DiskUsage(
        database=sum(map(_size, database)),
        **{kind: used[kind] for kind in _KINDS},
        free=free_bytes(folder.path),
    )


def _kind(parents: Sequence[str]) -> str:
    """Return the kind of a file, given the names of its parent folders below the output folder."""
    if parents and parents[0] == "artifacts":
        return "artifacts"
    return parents[1] if len(parents) > 1 and parents[1] in _TRIAL_KINDS else "other"


def _files(path: str, parents: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Yield all files below a folder.

    Each file is its path, the names of its parent folders below the top folder, and its size in bytes.
    """
    try:
        entries = list(os.scandir(path))
    except OSError:  # just removed, or not readable
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, (*parents, entry.name))
        else:
            with contextlib.suppress(OSError):
                yield entry.path, parents, entry.stat(follow_symlinks=False).st_size


def _database_files(folder: OutputFolder) -> set[str]:
    """Return the paths of the study's SQLite file and its journal, even if these files do not exist.

    The set is empty if the study is on a database server or no study owns the folder.
    """
    owner = folder.owner()
    path = None if owner is None else sqlite_path(folder.storage_url(owner))
    return set() if path is None else {str(path), f"{path}-journal"}


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
