"""Where pixel files lie, and who may write them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from search_spaces.errors import DataLoaderError
from tuner.data.pixel_file import PixelFile, read_pixel_file

_FOLDER_NAME = ".pixel_cache"
_LOCK_FILE = "lock"
_SUFFIX = ".pixels"
_UNFINISHED_SUFFIX = ".unfinished"
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


@dataclass
class NewFile:
    """A pixel file being written; it takes its place at the end if `keep` was set."""

    file: BinaryIO
    keep: bool = False


@dataclass(frozen=True)
class CacheFolder:
    """A folder for the pixel files of one metadata file, called `metadata_name`."""

    path: Path
    metadata_name: str

    def read(self, split: str) -> PixelFile | None:
        """Return the pixel file of `split`, or None if there is none."""
        return read_pixel_file(self.path / self._file_name(split))

    def remove(self, split: str) -> None:
        """Remove the pixel file of `split` if there is one."""
        (self.path / self._file_name(split)).unlink(missing_ok=True)

    def remove_stale(self, metadata_digest: str) -> None:
        """Remove pixel files of other contents of the metadata file, and what killed processes left."""
        for leftover in self.path.glob(f"*{_UNFINISHED_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        for path in self.path.glob(f"*{_SUFFIX}"):
            pixels = read_pixel_file(path)
            if pixels is None or (
                pixels.description["metadata_name"] == self.metadata_name
                and pixels.description["metadata_digest"] != metadata_digest
            ):
                path.unlink(missing_ok=True)

    @contextmanager
    def new_file(self, split: str, size: int) -> Iterator[NewFile]:
        """Give a file to write; it replaces the one of `split` in one step.

        Raises:
            DataLoaderError: If it cannot be written; the message tells that some `size` bytes are needed.
        """
        path = self.path / self._file_name(split)
        unfinished = path.with_name(f"{secrets.token_hex(8)}{_UNFINISHED_SUFFIX}")
        try:
            with open(unfinished, "wb") as file:
                new = NewFile(file)
                yield new
            if new.keep:
                os.replace(unfinished, path)
        except OSError as error:
            raise DataLoaderError(
                f"{self.path}: cannot write the pixel cache: {error.strerror or error}; "
                f"it needs {size // 10**6 + 1} MB there: free some space"
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)

    def _file_name(self, split: str) -> str:
        name = f"{self.metadata_name}.{split}"
        if not _SAFE_NAME.fullmatch(name):
            name = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        return name + _SUFFIX


def cache_folders(metadata_path: Path) -> list[CacheFolder]:
    """Return where a dataset's pixel files may be: beside the metadata, else in the user's cache folder."""
    real = os.path.realpath(metadata_path)
    own = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
    places = [metadata_path.parent / _FOLDER_NAME, _user_cache_folder() / "khmer-ocr-tuner" / own]
    return [CacheFolder(place, metadata_path.name) for place in places]


@contextmanager
def writable_folder(metadata_path: Path) -> Iterator[CacheFolder]:
    """Give the first cache folder that can be written, and keep other processes from writing it meanwhile.

    One that is made for this is removed again if an error ends its use with nothing in it.

    Raises:
        DataLoaderError: If none can be written.
    """
    problems = []
    for folder in cache_folders(metadata_path):
        is_new = not folder.path.exists()
        try:
            lock = _locked(folder.path)
        except OSError as error:
            problems.append(f"{folder.path}: {error.strerror}")
            continue
        with lock:  # closing it gives the lock back
            try:
                yield folder
            except BaseException:
                if is_new:
                    _remove_unused(folder.path)
                raise
        return
    raise DataLoaderError(
        f"{metadata_path}: found no folder to write the pixel cache to ({'; '.join(problems)}); "
        "make one of them writable, or set XDG_CACHE_HOME to a folder that is"
    )


def _locked(path: Path) -> BinaryIO:
    """Make the folder where it is missing, wait for its lock and return that."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / _LOCK_FILE, "ab")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(path / _LOCK_FILE)):
                return lock
        except FileNotFoundError:
            pass
        except BaseException:
            lock.close()
            raise
        lock.close()  # who held it has removed it, and the folder


def _remove_unused(path: Path) -> None:
    """Remove a folder that holds nothing but its lock, which this process has."""
    with contextlib.suppress(OSError):
        if os.listdir(path) == [_LOCK_FILE]:
            os.unlink(path / _LOCK_FILE)
            path.rmdir()


def _user_cache_folder() -> Path:
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured)
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
