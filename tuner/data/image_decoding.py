"""Image files as small grey pictures."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

IMAGE_WIDTH_PX = 128
IMAGE_HEIGHT_PX = 64
DIGEST_SIZE = 16

_BATCH = 128
_THREADS = 2  # Pillow decodes without holding Python's lock, but hashing and bookkeeping hold it


class DecodedImages(NamedTuple):
    """Some images in order: grey pixels `(n, 64, 128)`, digests of the files `(n, 16)`, and problems."""

    pixels: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.uint8]
    problems: list[str]


def decode_images(paths: Sequence[str]) -> Iterator[DecodedImages]:
    """Decode the images at `paths`, a batch at a time and in order."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(_decode_batch, batches)


def file_digest(data: bytes) -> npt.NDArray[np.uint8]:
    """Return the digest of an image file's bytes, `(16,)`."""
    return np.frombuffer(hashlib.blake2b(data, digest_size=DIGEST_SIZE).digest(), np.uint8)


def decode_image(data: bytes) -> npt.NDArray[np.uint8]:
    """Return an image file as grey pixels `(64, 128)`; other sizes are resized, transparency becomes white.

    Raises:
        OSError: If it is not an image that Pillow can read. Pillow also raises SyntaxError and ValueError.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.has_transparency_data:
            coloured = image.convert("RGBA")
            paper = Image.new("RGBA", coloured.size, "white")
            grey = Image.alpha_composite(paper, coloured).convert("L")
        else:
            grey = image.convert("L")
    if grey.size != (IMAGE_WIDTH_PX, IMAGE_HEIGHT_PX):
        grey = grey.resize((IMAGE_WIDTH_PX, IMAGE_HEIGHT_PX), Image.Resampling.BILINEAR)
    return np.asarray(grey, np.uint8)


def _decode_batch(paths: Sequence[str]) -> DecodedImages:
    pixels = np.zeros((len(paths), IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX), np.uint8)
    digests = np.zeros((len(paths), DIGEST_SIZE), np.uint8)
    problems = []
    for number, path in enumerate(paths):
        try:
            with open(path, "rb") as file:
                data = file.read()
            digests[number] = file_digest(data)
            pixels[number] = decode_image(data)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            problems.append(f"{path}: cannot be read as an image: {error}; make or copy it again")
    return DecodedImages(pixels, digests, problems)
