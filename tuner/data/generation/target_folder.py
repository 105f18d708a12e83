"""The folder of a generated dataset, and the hidden temporary folder in which it is generated."""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search_spaces.diagnostics.plural import listed
from search_spaces.errors import ConfigurationError
from tuner.data.generation.recipe import Recipe

_LOCK_FILE = ".lock"


def check_target(target: Path, recipe: Recipe) -> bool:
    """Return whether the dataset of `recipe` is already in `target`; False if `target` is missing or empty.

    Raises:
        ConfigurationError: `target` contains other files, or cannot be the folder of a dataset.
    """
    _check_location(target)
    if not os.path.lexists(target):
        return False
    if not target.is_dir():
        raise ConfigurationError(f"{target}: found a file; expected a new or empty folder; choose another folder")
    if not any(target.iterdir()):
        return False
    found = Recipe.read(target)
    if found == recipe and _is_complete(target, recipe):
        return True
    raise ConfigurationError(
        f"{target}: found {_description(target, found, recipe)}; expected a new or empty folder; "
        "choose another folder, or move or remove this one first"
    )


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new hidden folder in the parent folder of `target`; rename it to `target` at the end.

    After an error, or if another process has filled `target` in the meantime, the hidden folder is removed instead.
    Hidden folders of killed processes are removed first.

    Raises:
        OSError: The folder cannot be created or renamed.
    """
    destination = Path(os.path.realpath(target))
    destination.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{destination.name}.partial-"
    for partial in destination.parent.glob(f"{glob.escape(prefix)}*"):
        _remove_if_unlocked(partial)
    folder = destination.with_name(prefix + secrets.token_hex(4))
    folder.mkdir()
    try:
        with open(folder / _LOCK_FILE, "wb") as lock:  # the lock is released when this process exits or is killed
            fcntl.lockf(lock, fcntl.LOCK_EX)
            yield folder
            if _rename(folder, destination):
                (destination / _LOCK_FILE).unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_location(target: Path) -> None:
    if Path.cwd().is_relative_to(os.path.realpath(target)):
        raise ConfigurationError(
            f"{target}: is or contains the working directory; expected a new or empty folder; choose another folder"
        )
    try:
        str(target).encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{str(target)!r}: this path is not UTF-8, so it cannot be stored in the metadata; choose another folder"
        ) from None


def _is_complete(folder: Path, recipe: Recipe) -> bool:
    if not (folder / "metadata.yaml").is_file():
        return False
    return all(
        (folder / split).is_dir() and sum(name.endswith(".png") for name in os.listdir(folder / split)) == count
        for split, count in recipe.splits.items()
    )


def _description(folder: Path, found: Recipe | None, requested: Recipe) -> str:
    if found is None:
        names = sorted(path.name for path in folder.iterdir())
        return f"other files ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
    if found == requested:
        return "the same dataset, but with missing or additional files"
    changed = [
        f"{field} {getattr(found, field)} instead of {getattr(requested, field)}"
        for field in ("generator_version", "samples", "test_samples", "seed", "max_length", "hold_out_fonts")
        if getattr(found, field) != getattr(requested, field)
    ]
    for field in ("characters", "fonts"):
        if (old := getattr(found, field)) != (new := getattr(requested, field)):
            different = [entry for entry in (*old, *new) if (entry in old) != (entry in new)]
            names = [entry if isinstance(entry, str) else entry[0] for entry in different]
            changed.append(f"other {field}: {listed(names, 3)}" if names else f"another order of the {field}")
    return f"a dataset with different settings ({'; '.join(changed)})"


def _remove_if_unlocked(folder: Path) -> None:
    try:
        with open(folder / _LOCK_FILE, "r+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its process is running, or the folder belongs to another user
        return


def _rename(folder: Path, destination: Path) -> bool:
    """Rename `folder`; return False if `destination` is a folder with files."""
    try:
        folder.rename(destination)  # replaces an empty folder, and nothing else
    except OSError:
        if destination.is_dir() and any(destination.iterdir()):
            return False
        raise
    return True
