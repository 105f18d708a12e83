"""The folder that holds the cached pixels of a dataset: its files, and which process may write them.

A split has two files. `NAME.npy` holds the grey pixels. `NAME.jsonl` has two lines: the SHA-256 of the second line, and
the description of the split in JSON, with a digest of the pixels.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from search_spaces.errors import ConfigurationError, DataLoaderError
from search_spaces.files.file_locks import wait_for_lock
from search_spaces.files.regular_files import parse_json, read_bytes, regular_file
from tuner.data.image_decoding import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX

Bytes = npt.NDArray[np.uint8]

_LAYOUT = 4  # a cache of another layout is made again
_FOLDER_NAME = ".pixel_cache"
_LOCK_FILE = "lock"
_PIXELS_SUFFIX = ".npy"
_DESCRIPTION_SUFFIX = ".jsonl"
_UNFINISHED_SUFFIX = ".unfinished"
_IMAGE_BYTES = IMAGE_HEIGHT_PX * IMAGE_WIDTH_PX
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


class PixelFile:
    """Grey pixels `(N, 64, 128)`, read from a file when indexed: a memory map of a truncated file kills the process."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._numbers = path, np.arange(count)
        self._descriptor = regular_file(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._start = os.fstat(self._descriptor).st_size - count * _IMAGE_BYTES  # after NumPy's header

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int | slice | npt.NDArray[np.int64]) -> Bytes:
        numbers = self._numbers[index]
        images = np.empty((*numbers.shape, IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX), np.uint8)
        for number, image in zip(numbers.flat, images.reshape(-1, _IMAGE_BYTES), strict=True):
            if os.preadv(self._descriptor, [image.data], self._start + int(number) * _IMAGE_BYTES) < _IMAGE_BYTES:
                raise OSError(errno.EIO, "the cached pixels were truncated while in use", self._path)
        return images

    def __reduce__(self) -> tuple[Any, ...]:
        return np.asarray, (self[:],)


class CachedPixels(NamedTuple):
    """Undamaged pixels of one split `(N, 64, 128)`, and what the writer wrote about them."""

    images: PixelFile
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
        os.utime(Path(self.file.name).with_name(_LOCK_FILE))  # shows waiting processes that this one makes progress
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
            images = PixelFile(pixels_file, described["count"])
            sums = [_sums(images[start : start + 256]) for start in range(0, len(images), 256)]
        except OSError:
            return None
        return CachedPixels(images, described) if _digest(sums) == described["pixels_digest"] else None

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
        unfinished = self.path / f"{secrets.token_hex(8)}{_UNFINISHED_SUFFIX}"
        try:
            with open(unfinished, "wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX)}
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
        digest, _, line = read_bytes(file).partition(b"\n")
        if hashlib.sha256(line).hexdigest().encode() != digest:
            return None
        described: dict[str, Any] = parse_json(line)
        return described if described["layout"] == _LAYOUT else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


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
            folder.path.mkdir(parents=True, exist_ok=True)
            lock = wait_for_lock(folder.path / _LOCK_FILE)
        except (OSError, ConfigurationError) as error:  # the latter: the holder hangs, or there are no locks
            problems.append(f"{folder.path}: {getattr(error, 'strerror', None) or error}")
            continue
        with lock:
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
