"""Where the images of a dataset are, and whether they are still the same files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_SAMPLES_TRIED = 20


class ImageName(NamedTuple):
    """An image as the metadata name it; what they leave out is empty."""

    path: str
    filename: str


class ImageFolders:
    """Sizes and modification times of files, read a folder at a time: cheaper than asking file by file."""

    def __init__(self) -> None:
        """Begin without having read any folder."""
        self._folders: dict[str, dict[str, tuple[int, int]]] = {}

    def state(self, path: str) -> tuple[int, int] | None:
        """Return size in bytes and modification time in ns of the file at `path`; None if there is none."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = _list_folder(folder)
        return self._folders[folder].get(name)


def find_images(
    names: Sequence[ImageName], metadata_path: Path, split: str, folders: ImageFolders, place: Callable[[int], str]
) -> tuple[list[str], list[str]]:
    """Return the absolute paths of `names`, and a problem for each that cannot be found.

    The rule that finds the first images is tried first for all others. `place` says where in the metadata one is.
    """
    rule = _first_rule(names, metadata_path, split, folders)
    paths: list[str] = []
    missing: dict[int, list[str]] = {}
    for number, name in enumerate(names):
        candidates = image_candidates(name, metadata_path, split)
        tried = candidates[rule:] + candidates[:rule]
        found = next((path for path in tried if path and folders.state(path)), None)
        if found is not None:
            paths.append(found)
        elif any(name):  # else it is told already that the metadata name no image
            missing[number] = list(dict.fromkeys(path for path in candidates if path))
    if missing and not paths and len(missing) > 1:
        remedy = f"none of the {len(missing)} images of this split is there: run in the folder where the dataset was "
        remedy += "generated, or keep metadata and images together"
        missing = dict(list(missing.items())[:1])
    else:
        remedy = "copy it there, or delete the sample"
    return paths, [f"{place(number)}: {_missing_text(places, remedy)}" for number, places in missing.items()]


def _missing_text(places: list[str], remedy: str) -> str:
    if folder := next((path for path in places if os.path.isdir(path)), None):
        return f"its image is a folder, {folder}; name the file in it"
    return f"its image does not exist; looked for {', '.join(places)}; {remedy}"


def image_candidates(name: ImageName, metadata_path: Path, split: str) -> list[str]:
    """Return where the image may be, best first: absolute paths, empty text where a rule does not apply."""
    folder = str(metadata_path.parent)
    filename = name.filename or os.path.basename(name.path)
    from_working_directory = os.path.abspath(name.path) if name.path else ""
    from_above = os.path.normpath(os.path.join(os.path.dirname(folder), name.path)) if name.path else ""
    beside = os.path.join(folder, split, filename) if filename else ""
    return [from_working_directory, from_above, beside]


def _first_rule(names: Iterable[ImageName], metadata_path: Path, split: str, folders: ImageFolders) -> int:
    for name in list(names)[:_SAMPLES_TRIED]:
        for rule, path in enumerate(image_candidates(name, metadata_path, split)):
            if path and folders.state(path):
                return rule
    return 0


def _list_folder(folder: str) -> dict[str, tuple[int, int]]:
    states = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                    if entry.is_file():
                        states[entry.name] = (status.st_size, status.st_mtime_ns)
                except OSError:  # a link to nowhere, or deleted just now
                    continue
    except OSError:
        return {}
    return states
