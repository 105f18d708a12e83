"""Where the images of a dataset are, and whether they are still the same files."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_SAMPLES_TRIED = 20


class ImageName(NamedTuple):
    """An image as the metadata name it; what they leave out is empty."""

    path: str
    filename: str


def find_images(
    names: Sequence[ImageName], metadata_path: Path, split: str, place: Callable[[int], str]
) -> tuple[list[str], list[str]]:
    """Return the absolute paths of `names`, and a problem for each that cannot be found.

    The rule that finds the first images is tried first for all others. `place` says where in the metadata one is.
    """
    rule = _first_rule(names[:_SAMPLES_TRIED], metadata_path, split)
    paths: list[str] = []
    missing: dict[int, list[str]] = {}
    for number, name in enumerate(names):
        candidates = _candidates(name, metadata_path, split)
        found = _first_file(candidates[rule:] + candidates[:rule])
        if found is not None:
            paths.append(found)
        elif any(name):  # else it is reported already that the metadata name no image
            missing[number] = list(dict.fromkeys(path for path in candidates if path))
    if missing and not paths and len(missing) > 1:
        remedy = f"none of the {len(missing)} images of this split is there: run in the folder where the dataset was "
        remedy += "generated, or keep metadata and images together"
        missing = dict(list(missing.items())[:1])
    else:
        remedy = "copy it there, or delete the sample"
    return paths, [f"{place(number)}: {_missing_text(places, remedy)}" for number, places in missing.items()]


def find_image(name: ImageName, metadata_path: Path, split: str) -> str | None:
    """Return the absolute path of one image, or None if there is no such file."""
    return _first_file(_candidates(name, metadata_path, split))


def _candidates(name: ImageName, metadata_path: Path, split: str) -> list[str]:
    """Return where the image may be, best first: absolute paths, empty text where a rule does not apply."""
    folder = str(metadata_path.parent)
    filename = name.filename or os.path.basename(name.path)
    from_working_directory = os.path.abspath(name.path) if name.path else ""
    from_above = os.path.normpath(os.path.join(os.path.dirname(folder), name.path)) if name.path else ""
    beside = os.path.join(folder, split, filename) if filename else ""
    return [from_working_directory, from_above, beside]


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


def _first_rule(names: Iterable[ImageName], metadata_path: Path, split: str) -> int:
    for name in names:
        candidates = _candidates(name, metadata_path, split)
        if found := _first_file(candidates):
            return candidates.index(found)
    return 0


def _first_file(candidates: Iterable[str]) -> str | None:
    return next((path for path in candidates if path and os.path.isfile(path)), None)


def _missing_text(places: list[str], remedy: str) -> str:
    if folder := next((path for path in places if os.path.isdir(path)), None):
        return f"its image is a folder, {folder}; name the file in it"
    return f"its image does not exist; looked for {', '.join(places)}; {remedy}"
