"""The folder with the cached pixels of a dataset: its files, and the lock that lets only one process write them.

A split has two files. `NAME.npy` contains the grey pixels. `NAME.jsonl` contains two lines: the SHA-256 of the second
line, and the description of the split as JSON, which includes a digest of the pixels.
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
from tuner.data.images import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX

Bytes = npt.NDArray[np.uint8]

_LAYOUT = 5  # format version; caches of other versions are recreated
_FOLDER_NAME = ".pixel_cache"
_LOCK_FILE = "lock"
_PIXELS_SUFFIX = ".npy"
_DESCRIPTION_SUFFIX = ".jsonl"
_UNFINISHED_SUFFIX = ".unfinished"
_IMAGE_BYTES = IMAGE_HEIGHT_PX * IMAGE_WIDTH_PX
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


class PixelFile:
    """A file with the grey pixels `(N, 64, 128)` of N images; indexing reads the selected images.

    A memory map is not used: if another process truncated the file, reading it would kill this process with SIGBUS.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._numbers = path, np.arange(count)
        self._descriptor = regular_file(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._start = os.fstat(self._descriptor).st_size - count * _IMAGE_BYTES  # the end of NumPy's header

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
    """The verified pixels `(N, 64, 128)` of one split, and the description that `PixelWriter` stored with them."""

    images: PixelFile
    description: Mapping[str, Any]


@dataclass
class PixelWriter:
    """Writes the pixels of one split in batches; at the end, they replace the cached pixels if `description` is set."""

    file: BinaryIO
    description: Mapping[str, Any] | None = None
    sums: list[bytes] = field(default_factory=list)

    def write(self, images: Bytes) -> None:
        """Append images `(N, 64, 128)`."""
        self.file.write(images.data)
        os.utime(Path(self.file.name).with_name(_LOCK_FILE))  # shows progress to processes that wait for the lock
        self.sums.append(_sums(images))


@dataclass(frozen=True)
class CacheFolder:
    """A folder with the cached pixels of the dataset whose metadata file is `metadata_name`."""

    path: Path
    metadata_name: str

    def read(self, split: str) -> CachedPixels | None:
        """Read and verify the cached pixels of `split`; return None if they are missing or damaged."""
        pixels_file, description_file = self._files(split)
        description = _read_description(description_file)
        if description is None:
            return None
        try:
            images = PixelFile(pixels_file, description["count"])
            sums = [_sums(images[start : start + 256]) for start in range(0, len(images), 256)]
        except OSError:
            return None
        return CachedPixels(images, description) if _digest(sums) == description["pixels_digest"] else None

    def remove(self, split: str) -> None:
        """Remove the cache files of `split`, if any."""
        for file in self._files(split):
            file.unlink(missing_ok=True)

    def remove_stale(self, metadata_digest: str) -> None:
        """Remove damaged caches, caches of earlier versions of the metadata file, and files of killed processes."""
        for unfinished in self.path.glob(f"*{_UNFINISHED_SUFFIX}"):
            unfinished.unlink(missing_ok=True)
        for suffix in (_PIXELS_SUFFIX, _DESCRIPTION_SUFFIX):
            for file in self.path.glob(f"*{suffix}"):
                found = _read_description(file.with_suffix(_DESCRIPTION_SUFFIX))
                if found is None or (
                    found["metadata_name"] == self.metadata_name and found["metadata_digest"] != metadata_digest
                ):
                    file.unlink(missing_ok=True)

    @contextmanager
    def writer(self, split: str, count: int) -> Iterator[PixelWriter]:
        """Yield a writer for the `count` images of `split`; at the end, the written files replace the cached ones.

        Raises:
            DataLoaderError: The files cannot be written; the message gives the required disk space.
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
                self.remove(split)  # first, so that new pixels never have an old description
                os.replace(unfinished, pixels_file)
                own = {"layout": _LAYOUT, "count": count, "pixels_digest": _digest(writer.sums)}
                line = json.dumps({**writer.description, **own}).encode()
                unfinished.write_bytes(hashlib.sha256(line).hexdigest().encode() + b"\n" + line)
                os.replace(unfinished, description_file)
        except OSError as error:
            with suppress(OSError):  # the first error is more specific
                self.remove(split)
            raise DataLoaderError(
                f"{self.path}: cannot write the pixel cache: {error.strerror or error}; "
                f"it needs {count * 8500 // 10**6 + 1} MB; free some space on that disk"
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)

    def _files(self, split: str) -> tuple[Path, Path]:
        name = f"{self.metadata_name}.{split}"
        if not _SAFE_NAME.fullmatch(name):
            name = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        return self.path / f"{name}{_PIXELS_SUFFIX}", self.path / f"{name}{_DESCRIPTION_SUFFIX}"


def _read_description(file: Path) -> dict[str, Any] | None:
    """Read the description in `file`; return None if it is missing or damaged or has another format version."""
    try:
        digest, _, line = read_bytes(file).partition(b"\n")
        if hashlib.sha256(line).hexdigest().encode() != digest:
            return None
        description: dict[str, Any] = parse_json(line)
        return description if description["layout"] == _LAYOUT else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _sums(images: Bytes) -> bytes:
    """Return a fast checksum of each image: the sum of the image's 64-bit words."""
    sums: npt.NDArray[np.uint64] = images.view("<u8").sum(axis=(1, 2), dtype=np.uint64)
    return sums.tobytes()


def _digest(sums: list[bytes]) -> str:
    return hashlib.sha256(b"".join(sums)).hexdigest()


def cache_folders(metadata_path: Path) -> list[CacheFolder]:
    """Return a dataset's possible cache folders: in the metadata file's folder, then in the user's cache folder."""
    real_path = os.path.realpath(metadata_path)
    dataset_key = hashlib.sha256(os.fsencode(real_path)).hexdigest()[:16]
    paths = [metadata_path.parent / _FOLDER_NAME, _user_cache_folder() / "khmer-ocr-tuner" / dataset_key]
    return [CacheFolder(path, metadata_path.name) for path in paths]


@contextmanager
def writable_folder(metadata_path: Path) -> Iterator[CacheFolder]:
    """Lock and yield the first writable cache folder; other processes cannot write to it until the ``with`` block ends.

    After an error, a folder that this function created is removed, unless it contains files other than the lock file.

    Raises:
        DataLoaderError: No cache folder is writable.
    """
    problems = []
    for folder in cache_folders(metadata_path):
        is_new = not folder.path.exists()
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            lock = wait_for_lock(folder.path / _LOCK_FILE)
        except (OSError, ConfigurationError) as error:  # the latter: another process hangs, or locks are unsupported
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
        f"{metadata_path}: found no writable folder for the pixel cache ({'; '.join(problems)}); "
        "make one of these folders writable, or set XDG_CACHE_HOME to a writable folder"
    )


def _remove_unused(path: Path) -> None:
    """Remove a folder if it only contains its lock file; the caller must hold the lock."""
    with contextlib.suppress(OSError):
        if os.listdir(path) == [_LOCK_FILE]:
            os.unlink(path / _LOCK_FILE)
            path.rmdir()


def _user_cache_folder() -> Path:
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured)
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
