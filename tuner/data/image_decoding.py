"""Decoding image files to grey images of 128 x 64 pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from search_spaces.files.regular_files import read_bytes

IMAGE_WIDTH_PX = 128
IMAGE_HEIGHT_PX = 64

# Other formats are not needed, and Pillow's reader for PostScript runs the file in an interpreter.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")
MAX_FILE_BYTES = 256 * 10**6
MAX_PIXELS = 50_000_000  # an image of this size with transparency needs 600 MB of memory

_BATCH = 128
THREADS = 2  # Pillow releases the GIL while it decodes, but hashing and bookkeeping need it


class UnreadableImageError(Exception):
    """An image cannot be read; the text is the reason."""


class DecodedImage(NamedTuple):
    """Grey pixels `(64, 128)`, and the image's original size in pixels after the rotation in the EXIF data."""

    pixels: npt.NDArray[np.uint8]
    width_px: int
    height_px: int


class DecodedImages(NamedTuple):
    """N image files in order: grey pixels `(N, 64, 128)`, original widths and heights, file digests, problems.

    The pixels of an unreadable file are zeros, and it has an entry in `problems`, but none in `sizes` and `digests`.
    """

    pixels: npt.NDArray[np.uint8]
    sizes: list[tuple[int, int]]
    digests: list[bytes]
    problems: list[str]


def decode_images(paths: Sequence[str]) -> Iterator[DecodedImages]:
    """Decode image files and yield them in batches, in the order of `paths`."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    with ThreadPoolExecutor(THREADS) as threads:
        yield from threads.map(_decode_batch, batches)


def file_digest(data: bytes) -> bytes:
    """Return the 16-byte BLAKE2b digest of `data`, the content of an image file."""
    return hashlib.blake2b(data, digest_size=16).digest()


def decode_image(data: bytes) -> DecodedImage:
    """Decode `data`, the content of an image file: rotate as in its EXIF data, then convert with `grey_pixels`.

    Raises:
        UnreadableImageError: The file is not an image, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            ImageOps.exif_transpose(image, in_place=True)
            return grey_pixels(image)
    # Pillow's readers raise almost any exception for damaged files: SyntaxError, struct.error, EOFError, KeyError ...
    except Exception as error:
        raise UnreadableImageError(_reason(data, error)) from error


def grey_pixels(image: Image.Image) -> DecodedImage:
    """Convert an image to grey pixels, 0 black to 255 white, and the expected size.

    Transparency becomes white. The tones of an image with more than 8 bits per channel are scaled so that the darkest
    pixel becomes 0 and the brightest 255, because the black and white levels of the image are unknown. The networks
    normalise contrast anyway.
    """
    grey = _grey(image)
    width, height = grey.size
    if grey.size != (IMAGE_WIDTH_PX, IMAGE_HEIGHT_PX):
        grey = grey.resize((IMAGE_WIDTH_PX, IMAGE_HEIGHT_PX), Image.Resampling.BILINEAR)
    return DecodedImage(np.asarray(grey, np.uint8), width, height)


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled_to_bytes(np.asarray(image, np.float32)))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("L")
    return image.convert("L")


def _scaled_to_bytes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    values = np.nan_to_num(values, posinf=0, neginf=0)
    darkest, brightest = float(values.min()), float(values.max())
    if darkest < brightest:
        values = (values - darkest) * (255 / (brightest - darkest))
    return values.round().clip(0, 255).astype(np.uint8)


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"it is in none of the formats {', '.join(FORMATS)}, or its header is damaged"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it has more than {MAX_PIXELS // 10**6} million pixels"
    return str(error) or type(error).__name__


def _decode_batch(paths: Sequence[str]) -> DecodedImages:
    pixels = np.zeros((len(paths), IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX), np.uint8)
    decoded = DecodedImages(pixels, [], [], [])
    for number, path in enumerate(paths):
        try:
            data = read_bytes(path, MAX_FILE_BYTES)
            pixels[number], width, height = decode_image(data)
            decoded.sizes.append((width, height))
            decoded.digests.append(file_digest(data))
        except (OSError, UnreadableImageError) as error:
            reason = getattr(error, "strerror", None) or error
            decoded.problems.append(f"{path}: cannot be read as an image: {reason}; recreate or replace the file")
    return decoded
