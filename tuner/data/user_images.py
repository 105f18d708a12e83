"""Images that a user names or has in memory: from anywhere, in any state."""

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
    """An image that a user named or has in memory.

    Attributes:
        path: The file; None for an image in memory.
        pixels: Grey, as `decode_image` gives them, ``(64, 128)``; None if there is a problem.
        aspect_ratio: Width divided by height of the image, the right way up; 0 if there is a problem.
        problem: What is wrong with it, without its path; empty if nothing is.
    """

    path: Path | None
    pixels: npt.NDArray[np.uint8] | None = None
    aspect_ratio: float = 0.0
    problem: str = ""


def load_user_images(images: Iterable[ImageSource], batch_size: int) -> Iterator[list[UserImage]]:
    """Decode images in order, `batch_size` or fewer at a time; of a folder the images in it, by name."""
    files: list[UserImage | InMemory] = []
    for image in images:
        files += _files_of(Path(image)) if isinstance(image, str | os.PathLike) else [image]
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(files), batch_size):
            with warnings.catch_warnings():
                # What Pillow warns of (odd tags, large sizes) either does no harm or becomes a problem below.
                warnings.filterwarnings("ignore", module=r"PIL\.")
                pictures = list(threads.map(_load, files[start : start + batch_size]))
            yield pictures


def count_subfolders(path: str) -> int:
    """Return how many folders, hidden ones aside, are in a folder, which `load_user_images` skips; 0 for a file."""
    try:
        return sum(entry.is_dir() and not entry.name.startswith(".") for entry in os.scandir(path))
    except (OSError, ValueError):
        return 0


def _files_of(path: Path) -> list[UserImage]:
    """Return `path`, or the pictures in it if it is a folder, none of them read yet."""
    if not os.path.isdir(path):  # which, unlike Path.is_dir, answers for any path
        return [UserImage(path)]
    try:
        names = sorted(name for name in os.listdir(path) if _names_an_image(name))
    except OSError as error:
        return [UserImage(path, problem=f"the folder cannot be listed: {error.strerror}; check its rights")]
    if not names:
        return [UserImage(path, problem=f"the folder holds no pictures ({', '.join(sorted(SUFFIXES))})")]
    return [UserImage(path / name) for name in names]


def _names_an_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def _load(picture: UserImage | InMemory) -> UserImage:
    if not isinstance(picture, UserImage):
        return _load_from_memory(picture)
    if picture.problem or picture.path is None:
        return picture
    try:
        decoded = decode_image(read_bytes(picture.path, MAX_FILE_BYTES))
        return UserImage(picture.path, decoded.pixels, decoded.width_px / decoded.height_px)
    except FileNotFoundError:
        problem = f"there is no such file; {_nearest_image(picture.path)}"
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror or error}; check the file and its rights"
    except (UnreadableImageError, ValueError) as error:  # ValueError: a path that no system has
        problem = f"the file cannot be read as a picture: {error}; name a picture, or make it again"
    return UserImage(picture.path, problem=problem)


def _load_from_memory(picture: InMemory) -> UserImage:
    try:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        decoded = grey_pixels(ImageOps.exif_transpose(image))
        return UserImage(None, decoded.pixels, decoded.width_px / decoded.height_px)
    except Exception as error:  # Pillow raises nearly anything
        expected = "expected a PIL image, or an array of bytes: grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4)"
        return UserImage(None, problem=f"it cannot be read as a picture: {error}; {expected}; convert it before")


def _nearest_image(path: Path) -> str:
    """Return a hint with the most similar name of an image beside a missing one."""
    try:
        names = [name for name in os.listdir(path.parent) if _names_an_image(name)]
    except (OSError, ValueError):
        return "check the path"
    near = similar_name(path.name, names)
    return f"did you mean {near!r}?" if near else "check the name"
