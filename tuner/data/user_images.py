"""Loading the user's images: image files, all images in a folder, or images in memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from search_spaces.files.regular_files import read_bytes
from search_spaces.yaml_reader.file import similar_name
from tuner.data.image_decoding import MAX_FILE_BYTES, THREADS, UnreadableImageError, decode_image, grey_pixels

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
