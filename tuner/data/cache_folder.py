"""The folder that holds the cached pixels of a dataset: its files, and which process may write them.

A split has two files. `NAME.npy` holds the grey pixels. `NAME.jsonl` has two lines: the SHA-256 of the second line, and
the description of the split in JSON, with a digest of the pixels.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import sys
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from search_spaces.errors import DataLoaderError
from tuner.data.image_decoding import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX

Bytes = npt.NDArray[np.uint8]

_LAYOUT = 4  # a cache of another layout is made again
_FOLDER_NAME = ".pixel_cache"
_LOCK_FILE = "lock"
_PIXELS_SUFFIX = ".npy"
_DESCRIPTION_SUFFIX = ".jsonl"
_UNFINISHED_SUFFIX = ".unfinished"
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


@dataclass(frozen=True)
class CachedPixels:
    """Undamaged pixels of one split.

    Attributes:
        images: Grey pixels, memory-mapped, `(N, 64, 128)`. Writing to them changes no file.
        description: What the writer wrote about them.
    """

    images: Bytes
    description: Mapping[str, Any]


@dataclass
class PixelWriter:
    """Writes the pixels of one split batch by batch; they replace the old ones if a description is set."""

    file: BinaryIO
    description: Mapping[str, Any] | None = None
    sums: list[bytes] = field(default_factory=list)

    def write(self, images: Bytes) -> None:
        """Append images `(n, 64, 128)`."""
        self.file.write(images.data)
        self.sums.append(_sums(images))


@dataclass(frozen=True)
class CacheFolder:
    """A folder for the cached pixels of one metadata file, called `metadata_name`."""

    path: Path
    metadata_name: str

    def read(self, split: str) -> CachedPixels | None:
        """Return the pixels of `split`, or None if there are none or they are damaged."""
        pixels_file, description_file = self._files(split)
        described = _read_description(description_file)
        if described is None:
            return None
        try:
            # Copy on write: PyTorch warns about arrays that cannot be written.
            images = np.asarray(np.lib.format.open_memmap(pixels_file, mode="c"))
        except (OSError, ValueError, tokenize.TokenError):  # the latter two: the header is damaged
            return None
        shape = (described["count"], IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX)
        if images.dtype != np.uint8 or images.shape != shape or not images.flags.c_contiguous:
            return None
        return CachedPixels(images, described) if _digest([_sums(images)]) == described["pixels_digest"] else None

    def remove(self, split: str) -> None:
        """Remove the files of `split` if there are any."""
        for file in self._files(split):
            file.unlink(missing_ok=True)

    def remove_stale(self, metadata_digest: str) -> None:
        """Remove caches of other contents of the metadata file, and the files that killed processes left."""
        for leftover in self.path.glob(f"*{_UNFINISHED_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        for suffix in (_PIXELS_SUFFIX, _DESCRIPTION_SUFFIX):
            for file in self.path.glob(f"*{suffix}"):
                described = _read_description(file.with_suffix(_DESCRIPTION_SUFFIX))
                if described is None or (
                    described["metadata_name"] == self.metadata_name and described["metadata_digest"] != metadata_digest
                ):
                    file.unlink(missing_ok=True)

    @contextmanager
    def writer(self, split: str, count: int) -> Iterator[PixelWriter]:
        """Give a writer for the pixels of `split`, `count` images.

        Raises:
            DataLoaderError: If they cannot be written; the message says how much disk space is needed.
        """
        pixels_file, description_file = self._files(split)
        shape = (count, IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX)
        unfinished = self.path / f"{secrets.token_hex(8)}{_UNFINISHED_SUFFIX}"
        try:
            with open(unfinished, "wb") as file:  # not through a memory map: on a full disk that kills the process
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                writer = PixelWriter(file)
                yield writer
            if writer.description is not None:
                self.remove(split)  # first: an old description must never stand beside new pixels
                os.replace(unfinished, pixels_file)
                known = {"layout": _LAYOUT, "count": count, "pixels_digest": _digest(writer.sums)}
                line = json.dumps({**writer.description, **known}).encode()
                unfinished.write_bytes(hashlib.sha256(line).hexdigest().encode() + b"\n" + line)
                os.replace(unfinished, description_file)
        except OSError as error:
            with suppress(OSError):  # the first error says more
                self.remove(split)
            raise DataLoaderError(
                f"{self.path}: cannot write the pixel cache: {error.strerror or error}; "
                f"it needs {count * 8500 // 10**6 + 1} MB there: free some space"
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)

    def _files(self, split: str) -> tuple[Path, Path]:
        name = f"{self.metadata_name}.{split}"
        if not _SAFE_NAME.fullmatch(name):
            name = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        return self.path / f"{name}{_PIXELS_SUFFIX}", self.path / f"{name}{_DESCRIPTION_SUFFIX}"


def _read_description(file: Path) -> dict[str, Any] | None:
    """Return the description in `file`; None if there is none, or it is damaged or has another layout."""
    try:
        digest, _, line = file.read_bytes().partition(b"\n")
    except OSError:
        return None
    if hashlib.sha256(line).hexdigest().encode() != digest:
        return None
    described: dict[str, Any] = json.loads(line)
    return described if described.get("layout") == _LAYOUT else None


def _sums(images: Bytes) -> bytes:
    """Return the sum of each image's 64-bit words: a checksum as fast as memory is read."""
    sums: npt.NDArray[np.uint64] = images.view("<u8").sum(axis=(1, 2), dtype=np.uint64)
    return sums.tobytes()


def _digest(sums: list[bytes]) -> str:
    return hashlib.sha256(b"".join(sums)).hexdigest()


def cache_folders(metadata_path: Path) -> list[CacheFolder]:
    """Return where a dataset's pixel files may be: beside the metadata, else in the user's cache folder."""
    real = os.path.realpath(metadata_path)
    own = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
    places = [metadata_path.parent / _FOLDER_NAME, _user_cache_folder() / "khmer-ocr-tuner" / own]
    return [CacheFolder(place, metadata_path.name) for place in places]


@contextmanager
def writable_folder(metadata_path: Path) -> Iterator[CacheFolder]:
    """Give the first cache folder that can be written, and keep other processes from writing to it meanwhile.

    A folder that is created for this is removed again if an error leaves nothing in it.

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
    """Create the folder if it is missing, and return its lock once this process holds it."""
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
        lock.close()  # the process that held it has removed it with the folder


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
