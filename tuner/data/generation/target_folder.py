"""The folder a dataset goes to, and the hidden one beside it where it is made."""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search_spaces.errors import ConfigurationError
from tuner.data.generation.recipe import Recipe

_LOCK_FILE = ".lock"


def check_target(target: Path, recipe: Recipe) -> bool:
    """Return whether the dataset of `recipe` is in `target` already; False if there is nothing yet.

    Raises:
        ConfigurationError: If something else is there, or `target` is no place for a dataset.
    """
    _check_place(target)
    if not os.path.lexists(target):
        return False
    if not target.is_dir():
        raise ConfigurationError(f"{target}: found a file; a dataset needs a folder of its own: choose another one")
    if not any(target.iterdir()):
        return False
    found = Recipe.read(target)
    if found == recipe and _is_complete(target, recipe):
        return True
    raise ConfigurationError(
        f"{target}: found {_description(target, found, recipe)}; nothing is overwritten: "
        "choose another folder, or move or remove this one first"
    )


@contextmanager
def folder_in_the_making(target: Path) -> Iterator[Path]:
    """Give a fresh hidden folder beside `target`; it becomes `target` at the end, or vanishes after an error.

    If another process has filled `target` meanwhile, that one stays. What killed processes left is removed first.

    Raises:
        OSError: If the folder cannot be made or put in place.
    """
    place = Path(os.path.realpath(target))
    place.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{place.name}.partial-"
    for leftover in place.parent.glob(f"{glob.escape(prefix)}*"):
        _remove_if_abandoned(leftover)
    folder = place.with_name(prefix + secrets.token_hex(4))
    folder.mkdir()
    try:
        with open(folder / _LOCK_FILE, "wb") as lock:  # held as long as this process lives
            fcntl.lockf(lock, fcntl.LOCK_EX)
            yield folder
            if _put_in_place(folder, place):
                (place / _LOCK_FILE).unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_place(target: Path) -> None:
    if Path.cwd().is_relative_to(os.path.realpath(target)):
        raise ConfigurationError(
            f"{target}: is the working directory or holds it; a dataset needs a folder of its own: choose another one"
        )
    try:
        str(target).encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{str(target)!r}: cannot be written in the metadata, which are UTF-8: choose another folder"
        ) from None


def _is_complete(folder: Path, recipe: Recipe) -> bool:
    if not (folder / "metadata.yaml").is_file():
        return False
    return all(
        (folder / split).is_dir() and sum(name.endswith(".png") for name in os.listdir(folder / split)) == count
        for split, count in recipe.splits.items()
    )


def _description(folder: Path, found: Recipe | None, wanted: Recipe) -> str:
    if found is None:
        names = sorted(path.name for path in folder.iterdir())
        return f"files of something else ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
    if found == wanted:
        return "this very dataset, but with files missing or added"
    changed = [
        f"{field} {getattr(found, field)}, not {getattr(wanted, field)}"
        for field in ("generator_version", "samples", "test_samples", "seed")
        if getattr(found, field) != getattr(wanted, field)
    ]
    if found.fonts != wanted.fonts:
        changed.append(f"{len(found.fonts)} fonts that differ from the {len(wanted.fonts)} of now")
    return f"a dataset of another recipe ({'; '.join(changed)})"


def _remove_if_abandoned(folder: Path) -> None:
    try:
        with open(folder / _LOCK_FILE, "r+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its process lives, or it is somebody else's: leave it alone
        return


def _put_in_place(folder: Path, place: Path) -> bool:
    try:
        folder.rename(place)  # replaces an empty folder, and nothing else
    except OSError:
        if place.is_dir() and any(place.iterdir()):
            return False
        raise
    return True
