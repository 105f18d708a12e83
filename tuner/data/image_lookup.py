"""Finding the image files of a dataset, and detecting changes to them."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class ImageName(NamedTuple):
    """The `image_path` and `image_filename` of a sample in the metadata; empty text for a missing key."""

    path: str
    filename: str


class ImageLookup:
    """Finds the images of a split in the folders that `read_metadata` documents, in that order."""

    def __init__(self, metadata_path: Path, split: str) -> None:
        # Symbolic links are resolved first: the images are in the folder of the real metadata file.
        folders = dict.fromkeys(map(os.path.dirname, (os.path.realpath(metadata_path), str(metadata_path))))
        self._split_folders = [os.path.join(folder, split) for folder in folders]
        self._locations = [
            location
            for folder, split_folder in zip(folders, self._split_folders, strict=True)
            for location in ((os.path.dirname(folder), "path"), (folder, "path"), (split_folder, "filename"))
        ]
        # Last, since the working directory may have the images of another dataset.
        self._locations.append((os.getcwd(), "path"))
        self._is_folder: dict[str, bool] = {}

    def candidates(self, name: ImageName) -> Iterator[str]:
        """Yield the absolute path of an image in each searched folder; empty if the sample lacks the needed key."""
        name = name._replace(filename=name.filename or os.path.basename(name.path))
        for folder, key in self._locations:
            relative = name.path if key == "path" else name.filename
            yield os.path.normpath(os.path.join(folder, relative)) if relative else ""

    def find(self, name: ImageName) -> tuple[str, str]:
        """Return the absolute path of an image and the searched folder that contains it; both "" if no folder does.

        The folder is also empty if the image was found at an absolute `image_path`.
        """
        for (searched, key), path in zip(self._locations, self.candidates(name), strict=True):
            folder = os.path.dirname(path)
            if folder not in self._is_folder:  # saves a system call per image if the folder is missing
                self._is_folder[folder] = os.path.isdir(folder)
            if self._is_folder[folder] and os.path.isfile(path):
                is_absolute = key == "path" and os.path.isabs(name.path)
                return path, "" if is_absolute else folder if folder in self._split_folders else searched
        return "", ""


def find_images(
    names: Sequence[ImageName], metadata_path: Path, split: str, entry: Callable[[int], str]
) -> tuple[list[str], list[str]]:
    """Return the absolute paths of the images that exist, and the problems.

    Each missing image is a problem, and so is each folder with images after the first one. `entry` returns the file,
    line and key of the sample with a given index.
    """
    lookup = ImageLookup(metadata_path, split)
    paths: list[str] = []
    first_by_folder: dict[str, str] = {}
    missing: dict[int, list[str]] = {}
    for number, name in enumerate(names):
        path, folder = lookup.find(name)
        if path:
            paths.append(path)
            if folder and folder not in first_by_folder:
                first_by_folder[folder] = f"{entry(number)}: its image was found in {folder} ({path})"
        elif any(name):  # a sample without any image name has been reported already
            missing[number] = list(dict.fromkeys(path for path in lookup.candidates(name) if path))
    if missing and not paths and len(missing) > 1:
        remedy = f"all {len(missing)} images of this split are missing; run the command in the working directory of "
        remedy += "the dataset generator, or copy the images together with the metadata file"
        missing = dict(list(missing.items())[:1])
    else:
        remedy = "copy the image to one of these paths, or remove the sample"
    problems = [f"{entry(number)}: {_missing_text(searched, remedy)}" for number, searched in missing.items()]
    rule = "expected all images of a split in one folder; move them to the same folder, or correct 'image_path'"
    first, *others = first_by_folder.values() or [""]
    return paths, [f"{other}, but {first}; {rule}" for other in others] + problems


def states_digest(paths: Iterable[str]) -> str:
    """Return the SHA-256 digest of the sizes and modification times of the files."""
    states = array("q")
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            states.extend((-1, -1))
        else:
            states.extend((status.st_size, status.st_mtime_ns))
    return hashlib.sha256(states.tobytes()).hexdigest()


def _missing_text(searched: list[str], remedy: str) -> str:
    if folder := next((path for path in searched if os.path.isdir(path)), None):
        return f"its image {folder} is a folder; expected a file; add the file name"
    return f"its image does not exist; searched: {', '.join(searched)}; {remedy}"
