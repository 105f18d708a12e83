"""Where the images of a dataset are, and whether they are still the same files."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class ImageName(NamedTuple):
    """An image as the metadata name it; what they leave out is empty."""

    path: str
    filename: str


class ImageLookup:
    """Looks for the images of a split in the documented folders, in their order."""

    def __init__(self, metadata_path: Path, split: str) -> None:
        # The images are with the metadata file itself, even if it or its folder is reached by a link.
        folders = dict.fromkeys(map(os.path.dirname, (os.path.realpath(metadata_path), str(metadata_path))))
        self._beside = [os.path.join(folder, split) for folder in folders]
        self._places = [
            place
            for folder, beside in zip(folders, self._beside, strict=True)
            for place in ((os.path.dirname(folder), "path"), (folder, "path"), (beside, "filename"))
        ]
        # Last, since it may hold another dataset, whose images these labels do not describe.
        self._places.append((os.getcwd(), "path"))
        self._is_folder: dict[str, bool] = {}

    def candidates(self, name: ImageName) -> Iterator[str]:
        """Yield where an image may be, best first: absolute paths, empty text where a folder does not apply."""
        name = name._replace(filename=name.filename or os.path.basename(name.path))
        for folder, key in self._places:
            relative = name.path if key == "path" else name.filename
            yield os.path.normpath(os.path.join(folder, relative)) if relative else ""

    def find(self, name: ImageName) -> tuple[str, str]:
        """Return the absolute path of an image and the folder that it was found from; empty texts if there is none.

        An image with an absolute `image_path` has none.
        """
        for (place, key), path in zip(self._places, self.candidates(name), strict=True):
            folder = os.path.dirname(path)
            if folder not in self._is_folder:  # so that no image is looked up in a missing folder
                self._is_folder[folder] = os.path.isdir(folder)
            if self._is_folder[folder] and os.path.isfile(path):
                is_absolute = key == "path" and os.path.isabs(name.path)
                return path, "" if is_absolute else folder if folder in self._beside else place
        return "", ""


def find_images(
    names: Sequence[ImageName], metadata_path: Path, split: str, place: Callable[[int], str]
) -> tuple[list[str], list[str]]:
    """Return the absolute paths of `names`, and a problem for each that cannot be found or is in a second folder.

    `place` names the entry of an image in the metadata.
    """
    lookup = ImageLookup(metadata_path, split)
    paths: list[str] = []
    first_in: dict[str, str] = {}
    missing: dict[int, list[str]] = {}
    for number, name in enumerate(names):
        path, folder = lookup.find(name)
        if path:
            paths.append(path)
            if folder and folder not in first_in:
                first_in[folder] = f"{place(number)}: its image was found in {folder}: {path}"
        elif any(name):  # else it is reported already that the metadata name no image
            missing[number] = list(dict.fromkeys(path for path in lookup.candidates(name) if path))
    if missing and not paths and len(missing) > 1:
        remedy = f"none of the {len(missing)} images of this split is there: run in the folder where the dataset was "
        remedy += "generated, or keep metadata and images together"
        missing = dict(list(missing.items())[:1])
    else:
        remedy = "copy it there, or delete the sample"
    problems = [f"{place(number)}: {_missing_text(places, remedy)}" for number, places in missing.items()]
    rule = "all images of a split must be in one place; move them together, or correct image_path"
    first, *others = first_in.values() or [""]
    return paths, [f"{other}; but {first}; {rule}" for other in others] + problems


def states_digest(paths: Iterable[str]) -> str:
    """Return a SHA-256 that changes with the size or modification time of any of the files."""
    states = array("q")
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            states.extend((-1, -1))
        else:
            states.extend((status.st_size, status.st_mtime_ns))
    return hashlib.sha256(states.tobytes()).hexdigest()


def _missing_text(places: list[str], remedy: str) -> str:
    if folder := next((path for path in places if os.path.isdir(path)), None):
        return f"its image is a folder, {folder}; name the file in it"
    return f"its image does not exist; looked for {', '.join(places)}; {remedy}"
