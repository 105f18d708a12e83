"""PNG files whose bytes only depend on the pixels."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_BLOCK = 0xFFFF


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode an RGB image `(height, width, 3)` as a PNG file."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # each row starts with its filter type: 0, no filter
    rows[:, 1:] = pixels.reshape(height, width * 3)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", _stored(rows.tobytes())), _chunk(b"IEND", b""))
    )


def _stored(data: bytes) -> bytes:
    """Return `data` as a zlib stream of stored (uncompressed) blocks.

    zlib, zlib-ng and other libraries compress the same data to different bytes, but stored blocks are always the same.
    They need more disk space (24 KB per image), but are much faster to write and read.
    """
    parts = [b"\x78\x01"]
    for start in range(0, len(data), _MAX_BLOCK):
        block = data[start : start + _MAX_BLOCK]
        last = start + _MAX_BLOCK >= len(data)
        parts += (struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block)
    parts.append(struct.pack(">I", zlib.adler32(data)))
    return b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
