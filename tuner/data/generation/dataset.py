"""Generating a dataset: all of it or nothing, the same bytes for the same recipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from search_spaces.errors import DataLoaderError
from tuner.data.generation.font_search import find_fonts
from tuner.data.generation.metadata_text import format_metadata
from tuner.data.generation.recipe import RECIPE_FILE, Recipe, check_recipe_numbers
from tuner.data.generation.target_folder import check_target, folder_in_the_making
from tuner.data.generation.worker_pool import default_processes, write_chunks
from tuner.data.rendering.fonts import Font
from tuner.data.rendering.sample import Sample
from tuner.data.rendering.worker import Chunk, Task

_CHUNK = 128  # samples: some 50 ms of work
_LEAST_PER_PROCESS = 256  # starting a process takes as long as making this many


def generate_dataset(
    out_dir: str | os.PathLike[str],
    *,
    samples: int = 5000,
    test_samples: int = 1000,
    seed: int = 0,
    fonts: str = "pinned",
    fonts_dir: str | os.PathLike[str] | None = None,
    processes: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Generate pictures of Khmer digits with their metadata, and return the path of `metadata.yaml`.

    The same arguments give the same bytes on every machine, for any number of processes (with fonts other
    than the pinned one, given the same font files and version of FreeType). The folder appears when all is
    done; until then a hidden one beside it is filled. If the same dataset is there already, nothing is
    done.

    Args:
        out_dir: Folder to make; it may exist if it is empty.
        samples: Training and validation samples together, 10 or more; one in five is for validation.
        test_samples: Samples of the `test` split, 1 or more.
        seed: 0 to 2**32 - 1.
        fonts: `pinned`, or `system` to add the installed fonts that have all ten digits.
        fonts_dir: A folder whose fonts are added.
        processes: Number of processes, 1 or more; by default the cores this process may use.
        on_progress: Called with the samples done and the samples in all, now and then; from other threads,
            but never twice at a time.

    Raises:
        ConfigurationError: If an argument is senseless or `out_dir` holds something else.
        DataLoaderError: If the dataset cannot be written.
    """
    check_recipe_numbers(samples=samples, test_samples=test_samples, seed=seed, processes=processes)
    found = find_fonts(fonts, Path(fonts_dir) if fonts_dir is not None else None)
    recipe = Recipe.of(found, samples=samples, test_samples=test_samples, seed=seed)
    target = Path(out_dir)
    metadata_path = target / "metadata.yaml"
    if check_target(target, recipe):
        return metadata_path
    most = max(1, recipe.total // _LEAST_PER_PROCESS)
    try:
        with folder_in_the_making(target) as folder:
            made = _write_images(folder, recipe, found, processes or min(default_processes(), most), on_progress)
            text = format_metadata(_image_path_prefix(target), made)
            (folder / metadata_path.name).write_text(text, encoding="utf-8")
            (folder / RECIPE_FILE).write_text(recipe.as_json(), encoding="utf-8")
    except OSError as error:
        raise DataLoaderError(_write_problem(target, recipe, error)) from error
    check_target(target, recipe)  # another process may have been faster: fine if with the same recipe
    return metadata_path


def _write_images(
    folder: Path,
    recipe: Recipe,
    fonts: list[Font],
    processes: int,
    on_progress: Callable[[int, int], None] | None,
) -> Mapping[str, list[Sample]]:
    chunks = []
    for number, (split, count) in enumerate(recipe.splits.items()):
        (folder / split).mkdir()
        chunks += [Chunk(split, number, start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    made: dict[Chunk, list[Sample]] = {}
    done = 0

    def keep(chunk: Chunk, samples: list[Sample]) -> None:
        nonlocal done
        made[chunk] = samples
        done += len(samples)
        if on_progress:
            on_progress(done, recipe.total)

    task = Task(folder=str(folder.resolve()), seed=recipe.seed, fonts=tuple(fonts))
    write_chunks(task, chunks, min(processes, len(chunks)), keep)
    return {
        split: [sample for chunk in chunks if chunk.split == split for sample in made[chunk]] for split in recipe.splits
    }


def _image_path_prefix(target: Path) -> str:
    """Return what image paths start with: `target` as seen from the working directory, if it is inside.

    Elsewhere its name alone is right, since paths are also looked up from the folder that holds `target`.
    """
    absolute = Path(os.path.abspath(target))
    if absolute.is_relative_to(Path.cwd()):
        return absolute.relative_to(Path.cwd()).as_posix()
    return absolute.name


def _write_problem(target: Path, recipe: Recipe, error: OSError) -> str:
    where = error.filename or target
    need_mb = recipe.total * 25 // 1000 + 1
    return (
        f"{where}: cannot write the dataset: {error.strerror or error}; {target} needs {need_mb} MB "
        "in a folder that can be written: free some space or choose another folder"
    )
