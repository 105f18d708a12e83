"""The image files of a split: where they lie, and whether they are still the same files."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, overload

import numpy as np


class ImagePaths(Sequence[str]):
    """Absolute paths, put together when they are asked for: of 100,000 hardly one ever is."""

    def __init__(self, folders: Sequence[str], folder_numbers: Sequence[int], names: Sequence[str]) -> None:
        """Take folders, which of them each image lies in, and the images' names there."""
        self._folders = folders
        self._folder_numbers = folder_numbers
        self._names = names

    @classmethod
    def of(cls, paths: Iterable[str]) -> ImagePaths:
        """Take paths apart."""
        folders: dict[str, int] = {}
        numbers, names = [], []
        for path in paths:
            folder, name = os.path.split(path)
            numbers.append(folders.setdefault(folder, len(folders)))
            names.append(name)
        return cls(list(folders), numbers, names)

    @classmethod
    def from_description(cls, described: Mapping[str, Any], beside: Path) -> ImagePaths:
        """Return what `description` described."""
        folders = [os.path.normpath(beside / folder) for folder in described["folders"]]
        return cls(folders, described["folder_numbers"], described["names"])

    def description(self, beside: Path) -> dict[str, Sequence[str] | Sequence[int]]:
        """Return plain data, relative to the folder `beside`, so that all can move together."""
        folders = [os.path.relpath(folder, beside) for folder in self._folders]
        return {"folders": folders, "folder_numbers": self._folder_numbers, "names": self._names}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one path, or the paths of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return os.path.join(self._folders[self._folder_numbers[index]], self._names[index])

    def states_digest(self) -> str:
        """Return a SHA-256 that changes with the size or modification time of any of the files."""
        states = array("q")
        placed = zip(self._folder_numbers, self._names, strict=True)
        for number, images in groupby(placed, key=itemgetter(0)):
            states.extend(_states(self._folders[number], (name for _, name in images)))
        return hashlib.sha256(np.asarray(states, "<i8").tobytes()).hexdigest()


def _states(folder: str, names: Iterable[str]) -> Iterator[int]:
    """Yield size in bytes and modification time in ns of each of a folder's files; -1 where there is none."""
    try:
        # From the folder on, the system has a name to look up, not a path: most of an opening's time goes here.
        # Linux then asks for no right to list it, which no one needs who knows the names.
        opened = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
    except OSError:
        yield from (-1 for _ in names for _ in range(2))
        return
    try:
        for name in names:
            try:
                status = os.stat(name, dir_fd=opened)
            except OSError:
                yield from (-1, -1)
            else:
                yield status.st_size
                yield status.st_mtime_ns
    finally:
        os.close(opened)
