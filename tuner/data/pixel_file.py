"""The file that holds the grey pixels and labels of one split.

Layout: magic, padding to 4,096 bytes, the arrays of `_ARRAYS` one after the other, a description in JSON,
its length, its SHA-256, magic. What describes the rest stands at the end and is written last, so a file
that was cut short or only half written has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tuner.data.image_decoding import DIGEST_SIZE, IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX
from tuner.data.vocabulary import LABEL_LENGTH

Bytes = npt.NDArray[np.uint8]

_MAGIC = b"khmerpx2"  # the number counts layouts; a file of another one is made again
_DATA_START = 4096
_TAIL_SIZE = 8 + 32 + len(_MAGIC)
_BLOCK = 1 << 22

_ARRAYS: dict[str, tuple[int, ...]] = {
    "images": (IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX),
    "labels": (LABEL_LENGTH,),
    "fonts": (4,),  # number of the font, low byte first
    "sizes": (8,),  # width and height of the image file in pixels, four bytes each, low byte first
    "digests": (DIGEST_SIZE,),
}


@dataclass(frozen=True)
class PixelFile:
    """A file that was found whole, mapped into memory.

    Attributes:
        count: Number of samples.
        description: What the writer wrote about the arrays.
        data: All arrays, one after the other.
    """

    count: int
    description: Mapping[str, Any]
    data: Bytes

    def array(self, name: str) -> Bytes:
        """Return one of the arrays, samples first. What is written to it stays in this process."""
        offset = 0
        for other, shape in _ARRAYS.items():
            size = self.count * int(np.prod(shape))
            if other == name:
                return self.data[offset : offset + size].reshape(self.count, *shape)
            offset += size
        raise KeyError(name)

    def is_undamaged(self) -> bool:
        """Return whether the arrays have their checksum; this reads all of them."""
        blocks = range(0, len(self.data), _BLOCK)
        checksum = sum(_sum_of_words(self.data[start : start + _BLOCK]) for start in blocks)
        return bool(checksum % 2**64 == self.description["checksum"])


class PixelFileWriter:
    """Writes a pixel file piece by piece, images first and then the other arrays in order."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin a pixel file in `file`, which is empty."""
        self._file = file
        self._checksum = 0
        self._pending = np.zeros(0, np.uint8)
        file.write(_MAGIC.ljust(_DATA_START, b"\0"))

    def write(self, piece: Bytes) -> None:
        """Append rows of the current array."""
        flat = piece.ravel()
        self._file.write(flat.data)
        waiting = np.concatenate([self._pending, flat])
        whole = len(waiting) // 8 * 8
        self._checksum += _sum_of_words(waiting[:whole])
        self._pending = waiting[whole:]

    def finish(self, count: int, description: Mapping[str, Any]) -> None:
        """Write the description, which makes the file whole."""
        checksum = (self._checksum + _sum_of_words(self._pending)) % 2**64
        text = json.dumps({**description, "count": count, "checksum": checksum}).encode()
        self._file.write(text + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + _MAGIC)


def read_pixel_file(path: Path) -> PixelFile | None:
    """Return the pixel file at `path`; None if there is none, or it was cut short or damaged at the end."""
    try:
        # Copy on write: PyTorch warns about arrays that cannot be written. The file itself never changes.
        content = np.memmap(path, np.uint8, mode="c")
    except (OSError, ValueError):  # ValueError: the file is empty
        return None
    tail = content[-_TAIL_SIZE:].tobytes()
    end = len(content) - _TAIL_SIZE
    start = end - int.from_bytes(tail[:8], "little")
    if not tail.endswith(_MAGIC) or not _DATA_START <= start < end:
        return None
    text = content[start:end].tobytes()
    if hashlib.sha256(text).digest() != tail[8:40]:
        return None
    description = json.loads(text)
    count = description["count"]
    if start != _DATA_START + _data_size(count):
        return None
    return PixelFile(count, description, np.asarray(content[_DATA_START:start]))


def pixel_file_size(count: int) -> int:
    """Return about how many bytes a file of `count` samples needs."""
    return _DATA_START + _data_size(count) + 64 * count


def font_numbers(fonts: Iterable[str]) -> tuple[Bytes, list[str]]:
    """Return the fonts as rows of four bytes `(n, 4)`, and the names they number."""
    names: dict[str, int] = {}
    numbers = np.array([names.setdefault(font, len(names)) for font in fonts], "<u4")
    return numbers.view(np.uint8).reshape(-1, 4), list(names)


def size_rows(sizes: npt.NDArray[np.uint32]) -> Bytes:
    """Return widths and heights `(n, 2)` as rows of eight bytes `(n, 8)`."""
    return sizes.astype("<u4").view(np.uint8).reshape(-1, 8)


def _data_size(count: int) -> int:
    return count * sum(int(np.prod(shape)) for shape in _ARRAYS.values())


def _sum_of_words(data: Bytes) -> int:
    """Return the sum of `data` taken as 64-bit words, filled up with zeros: as fast as memory is read."""
    if len(data) % 8:
        data = np.concatenate([data, np.zeros(-len(data) % 8, np.uint8)])
    return int(data.view("<u8").sum(dtype=np.uint64))
