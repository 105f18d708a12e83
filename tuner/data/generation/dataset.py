"""Generating a dataset: completely or not at all, and byte-identical for the same recipe."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search_spaces.diagnostics.wording import listed
from search_spaces.errors import ConfigurationError, DataLoaderError
from tuner.data.generation.fonts import Font, find_fonts
from tuner.data.generation.png import encode_png
from tuner.data.generation.recipe import RECIPE_FILE, Recipe, check_recipe_numbers, read_characters
from tuner.data.generation.sample import Sample, render_sample
from tuner.data.images import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX
from tuner.data.metadata import UNSEEN_SPLIT
from tuner.data.vocabulary import DEFAULT_MAX_LENGTH, KHMER_DIGITS, SPECIAL_SYMBOLS, Vocabulary

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


_SAMPLES_BETWEEN_REPORTS = 128


def generate_dataset(
    out_dir: str | os.PathLike[str],
    *,
    samples: int = 5000,
    test_samples: int = 1000,
    seed: int = 0,
    fonts: str = "pinned",
    fonts_dir: str | os.PathLike[str] | None = None,
    characters: str = KHMER_DIGITS,
    max_length: int = DEFAULT_MAX_LENGTH,
    hold_out_fonts: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Generate images of labels with their metadata, and return the path of `metadata.yaml`.

    The same arguments give the same bytes on every machine (fonts other than the pinned one also need the same font
    files and FreeType version, shaped scripts the same HarfBuzz version). The files are written to a hidden folder in
    the parent folder of `out_dir`; the complete folder is renamed to `out_dir`. If `out_dir` already contains the same
    dataset, nothing is done.

    Args:
        out_dir: Folder to create; an existing one must be empty.
        samples: Number of training and validation samples, 10 or more; one fifth is for validation.
        test_samples: Number of samples of the `test` split, 1 or more.
        seed: Random seed, 0 to 2**32 - 1.
        fonts: `pinned`, or `system` to add the installed fonts that have all characters.
        fonts_dir: A folder; its fonts that have all characters are added.
        characters: The characters of the labels, or a UTF-8 text file with them; white space is ignored.
        max_length: Maximum number of characters in a label, 1 to 24; all lengths are equally frequent.
        hold_out_fonts: Number of font designs that only the additional split `unseen` has, as large as `test`.
        on_progress: Called every 128 samples and at the end, with the number of finished samples and the total.

    Raises:
        ConfigurationError: An argument is invalid, or `out_dir` contains other files.
        DataLoaderError: The dataset cannot be written.
    """
    numbers = {"samples": samples, "test_samples": test_samples, "seed": seed}
    numbers |= {"max_length": max_length, "hold_out_fonts": hold_out_fonts}
    check_recipe_numbers(**numbers)
    vocabulary = Vocabulary(read_characters(characters), max_length)
    font_list = find_fonts(fonts, Path(fonts_dir) if fonts_dir is not None else None, vocabulary.characters)
    recipe = Recipe.of(font_list, vocabulary, **numbers)
    target = Path(out_dir)
    metadata_path = target / "metadata.yaml"
    if check_target(target, recipe):
        return metadata_path
    try:
        with temporary_folder(target) as folder:
            written = _write_images(folder, recipe, font_list, on_progress)
            text = _metadata_text(_image_path_prefix(target), vocabulary, written)
            (folder / metadata_path.name).write_text(text, encoding="utf-8")
            (folder / RECIPE_FILE).write_text(recipe.as_json(), encoding="utf-8")
    except OSError as error:
        raise DataLoaderError(
            f"{error.filename or target}: cannot write the dataset: {error.strerror or error}; {target} needs "
            f"{recipe.total * 25 // 1000 + 1} MB in a writable folder; free some space or choose another folder"
        ) from error
    check_target(target, recipe)  # another process may have created the dataset: accepted if its recipe is the same
    return metadata_path


def _write_images(
    folder: Path, recipe: Recipe, fonts: list[Font], on_progress: Callable[[int, int], None] | None
) -> dict[str, list[Sample]]:
    written: dict[str, list[Sample]] = {split: [] for split in recipe.splits}
    done = 0
    held_out, vocabulary = recipe.held_out_designs, Vocabulary(recipe.characters, recipe.max_length)
    for split_number, (split, count) in enumerate(recipe.splits.items()):
        (folder / split).mkdir()
        split_fonts = [font for font in fonts if (font.design in held_out) == (split == UNSEEN_SPLIT)]
        for number in range(count):
            sample, pixels = render_sample(split_fonts, vocabulary, recipe.seed, split_number, number)
            (folder / split / _image_filename(split, number)).write_bytes(encode_png(pixels))
            written[split].append(sample)
            done += 1
            if on_progress and (done % _SAMPLES_BETWEEN_REPORTS == 0 or done == recipe.total):
                on_progress(done, recipe.total)
    return written


def _image_filename(split: str, number: int) -> str:
    return f"{split}_{number:06d}.png"


def _metadata_text(image_folder: str, vocabulary: Vocabulary, splits: Mapping[str, Sequence[Sample]]) -> str:
    """Format `metadata.yaml`, in which each sample is one line of JSON."""
    held_out = sorted({sample.font for sample in splits.get(UNSEEN_SPLIT, ())})
    info = {
        "character_set": [*vocabulary.characters, *SPECIAL_SYMBOLS],
        "fonts_used": sorted({sample.font for samples in splits.values() for sample in samples}),
        **({"held_out_fonts": held_out} if held_out else {}),
        "generated_by": "text",
        "image_size": [IMAGE_WIDTH_PX, IMAGE_HEIGHT_PX],
        "max_sequence_length": vocabulary.max_length,
        "total_samples": sum(map(len, splits.values())),
        **{f"{split}_samples": len(samples) for split, samples in splits.items()},
    }
    lines = ["dataset_info:", *(f"  {key}: {_json(value)}" for key, value in info.items())]
    for split, samples in splits.items():
        lines += [f"{split}:", "  samples:"]
        for number, sample in enumerate(samples):
            filename = _image_filename(split, number)
            entry = {
                "image_path": f"{image_folder}/{split}/{filename}",
                "image_filename": filename,
                "label": sample.label,
                "font": sample.font,
                "font_size": sample.font_size,
                "sequence_length": len(vocabulary.split(sample.label)),
                "augmented": sample.augmented,
                "text_color": sample.text_color,
                "text_position": sample.text_position,
            }
            lines.append(f"  - {_json(entry)}")
    return "\n".join(lines) + "\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _image_path_prefix(target: Path) -> str:
    """Return the folder with which image paths in the metadata start.

    If `target` is inside the working directory, this is its path relative to that directory. Otherwise the name of
    `target` is enough, because image paths are also resolved relative to the parent folder of `target`.
    """
    absolute = Path(os.path.abspath(target))
    if absolute.is_relative_to(Path.cwd()):
        return absolute.relative_to(Path.cwd()).as_posix()
    return absolute.name
