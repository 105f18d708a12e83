"""Decoding images to grey pixels of 128 x 64: the files of a dataset, and a user's files, folders and arrays."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from search_spaces.files.regular_files import read_bytes
from search_spaces.yaml_reader.file import similar_name

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


InMemory = Image.Image | npt.NDArray[Any]
ImageSource = str | os.PathLike[str] | InMemory

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".tif", ".tiff", ".webp", ".avif", ".jp2"}
)


@dataclass(frozen=True)
class UserImage:
    """One of the user's images.

    Attributes:
        path: The file; None for an image in memory.
        pixels: Grey pixels as returned by `decode_image`, ``(64, 128)``; None if there is a problem.
        aspect_ratio: Original width divided by height, after the rotation in the EXIF data; 0 if there is a problem.
        problem: Why the image cannot be read, without the path; empty text if it can be read.
    """

    path: Path | None
    pixels: npt.NDArray[np.uint8] | None = None
    aspect_ratio: float = 0.0
    problem: str = ""


def load_user_images(images: Iterable[ImageSource], batch_size: int) -> Iterator[list[UserImage]]:
    """Decode images in order and yield them in batches; replace a folder by its images in order of name."""
    files: list[UserImage | InMemory] = []
    for image in images:
        files += _files_of(Path(image)) if isinstance(image, str | os.PathLike) else [image]
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(files), batch_size):
            with warnings.catch_warnings():
                # Pillow warns of unknown tags, which are harmless, and of large images, which are reported below.
                warnings.filterwarnings("ignore", module=r"PIL\.")
                batch = list(threads.map(_load, files[start : start + batch_size]))
            yield batch


def count_subfolders(path: str) -> int:
    """Return the number of visible subfolders of a folder, which `load_user_images` skips; 0 for a file."""
    try:
        return sum(entry.is_dir() and not entry.name.startswith(".") for entry in os.scandir(path))
    except (OSError, ValueError):
        return 0


def _files_of(path: Path) -> list[UserImage]:
    """Return `path`, or the images in it if it is a folder, without reading them."""
    if not os.path.isdir(path):  # unlike Path.is_dir, it never raises
        return [UserImage(path)]
    try:
        names = sorted(name for name in os.listdir(path) if _is_image_name(name))
    except OSError as error:
        return [UserImage(path, problem=f"the folder cannot be listed: {error.strerror}; check its permissions")]
    if not names:
        return [UserImage(path, problem=f"the folder contains no images ({', '.join(sorted(SUFFIXES))}); add an image")]
    return [UserImage(path / name) for name in names]


def _is_image_name(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def _load(image: UserImage | InMemory) -> UserImage:
    if not isinstance(image, UserImage):
        return _load_from_memory(image)
    if image.problem or image.path is None:
        return image
    try:
        decoded = decode_image(read_bytes(image.path, MAX_FILE_BYTES))
        return UserImage(image.path, decoded.pixels, decoded.width_px / decoded.height_px)
    except FileNotFoundError:
        problem = f"there is no such file; {_similar_image(image.path)}"
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror or error}; check the file and its permissions"
    except (UnreadableImageError, ValueError) as error:  # ValueError: the path is invalid, for example has a null byte
        problem = f"the file cannot be read as an image: {error}; choose an image file, or recreate the file"
    return UserImage(image.path, problem=problem)


def _load_from_memory(source: InMemory) -> UserImage:
    try:
        image = source if isinstance(source, Image.Image) else Image.fromarray(source)
        decoded = grey_pixels(ImageOps.exif_transpose(image))
        return UserImage(None, decoded.pixels, decoded.width_px / decoded.height_px)
    except Exception as error:  # Pillow raises almost any exception
        expected = "expected a PIL image, or an array of bytes: grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4)"
        return UserImage(None, problem=f"it cannot be read as an image: {error}; {expected}; convert the image first")


def _similar_image(path: Path) -> str:
    """Return a remedy for a missing image: the most similar image name in the folder, if any."""
    try:
        names = [name for name in os.listdir(path.parent) if _is_image_name(name)]
    except (OSError, ValueError):
        return "check the path"
    near = similar_name(path.name, names)
    return f"did you mean {near!r}?" if near else "check the name"
