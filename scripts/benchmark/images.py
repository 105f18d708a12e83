"""A dataset of many images: opening it, and time and memory of a worker that trains on it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from harness.processes import in_new_interpreter
from harness.replacement import replace
from rich.table import Table

from benchmark.plan import Figures, Plan, train_here, without_end
from benchmark.stopwatch import Stopwatch, Watched, refuse_uncalled
from search_spaces import TrainingConfig
from tuner.data.metadata import read_metadata
from tuner.data.pixel_cache import open_pixel_cache
from tuner.data.vocabulary import CHARACTER_SET
from tuner.display.terminal import plain_table

# Of ten images one more, for validation.
_VALIDATION = 10
_BYTES_AN_IMAGE = 12_000
_OPENINGS = 3
_EPOCHS = 3
_POLL_S = 0.25
_TRAINING = Watched("training", ("tuner.training.epoch.train_epoch",), opaque=True)
_VALIDATING = Watched("validation", ("tuner.training.epoch.score_split",), opaque=True)


def measure(plan: Plan) -> Figures:
    """Measure with a tenth of the images and with all of them."""
    most = 2_000 if plan.quick else 100_000
    needed, free = most * _BYTES_AN_IMAGE, shutil.disk_usage(plan.folder).free
    if free < needed:
        return {"skipped": f"{needed / 1e9:.1f} GB of disk needed in {plan.folder.parent}, {free / 1e9:.1f} GB free"}
    figures: Figures = {}
    for images in (most // 10, most):
        plan.say(f"{images:,} images")
        place = plan.folder / f"images_{images}"
        config = plan.typical
        metadata = _repeated(plan.metadata, place, images, config)
        started_at = time.perf_counter()
        open_pixel_cache(metadata, [config.train_split, config.val_split])
        first = time.perf_counter() - started_at
        splits = [config.train_split, config.val_split]
        arguments = {"metadata": str(metadata), "splits": splits}
        openings = [in_new_interpreter(seconds_to_open, place, plan.threads, **arguments) for _ in range(_OPENINGS)]
        placed = asdict(without_end(config, _EPOCHS, "cpu")) | {"metadata_path": str(metadata)}
        batches = 3 if plan.quick else 60
        trained = in_new_interpreter(train_some, place, plan.threads, config=placed, place=str(place), batches=batches)
        figures[str(images)] = {"first_opening_seconds": first, "opening_seconds": min(openings)} | trained
        shutil.rmtree(place)
    return figures


def tables(figures: Figures) -> list[Table]:
    """Return the figures at both sizes, and how they grow."""
    table = plain_table("training images", *(f"{int(images):,}" for images in figures), "ratio", right=(1, 2, 3))
    rows = (
        ("first opening, which decodes, s", "first_opening_seconds", 1.0, ".2f"),
        ("opening from the cache, s", "opening_seconds", 1.0, ".3f"),
        ("training, ms an image", "training_seconds_per_image", 1e3, ".3f"),
        ("validation, ms an image", "validation_seconds_per_image", 1e3, ".3f"),
        ("memory of a worker (PSS), most, MB", "peak_pss_mb", 1.0, ".0f"),
        ("of it no other process's (USS), most, MB", "peak_uss_mb", 1.0, ".0f"),
    )
    small, large = figures.values()
    for title, name, factor, form in rows:
        shown = [f"{found[name] * factor:{form}}" for found in (small, large)]
        table.add_row(title, *shown, f"{large[name] / small[name]:.2f}")
    return [table]


def seconds_to_open(metadata: str, splits: list[str]) -> float:
    """Return how long a dataset takes to open, in this process."""
    started_at = time.perf_counter()
    open_pixel_cache(metadata, splits)
    return time.perf_counter() - started_at


def train_some(config: dict[str, Any], place: str, batches: int) -> Figures:
    """Train epochs of a few batches, in this process; the last one counts for time, all for memory."""
    settings = TrainingConfig(**config)

    def cut_short(epochs: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        # Validation is not counted in epochs, so that it is whole.
        return lambda batches_of, epoch: itertools.islice(epochs(batches_of, epoch), batches if epoch else None)

    replace("tuner.data.batches.SplitBatches.epoch", cut_short)
    watch = Stopwatch()
    watch.time((_TRAINING, _VALIDATING))
    watch.lap_before("tuner.training.loop._reason_to_end")
    with _memory_watched() as memory:
        train_here(settings, Path(place))
    refuse_uncalled(watch.laps, [_TRAINING.part, _VALIDATING.part])
    cache = open_pixel_cache(settings.metadata_path, [settings.train_split, settings.val_split])
    last = watch.laps[-1].parts
    trained = min(batches * settings.batch_size, len(cache[settings.train_split]))
    return {
        "training_seconds_per_image": last[_TRAINING.part] / trained,
        "validation_seconds_per_image": last[_VALIDATING.part] / len(cache[settings.val_split]),
        "peak_pss_mb": memory["pss"] / 1e6,
        "peak_uss_mb": memory["uss"] / 1e6,
    }


@contextlib.contextmanager
def _memory_watched() -> Iterator[dict[str, int]]:
    """Poll this process's memory; yield its maximum."""
    most = {"pss": 0, "uss": 0}
    over = threading.Event()
    process = psutil.Process()

    def poll() -> None:
        while not over.wait(_POLL_S):
            memory = process.memory_full_info()
            most["uss"] = max(most["uss"], memory.uss)
            most["pss"] = max(most["pss"], getattr(memory, "pss", memory.rss))  # Linux alone shares out pages

    polling = threading.Thread(target=poll)
    polling.start()
    try:
        yield most
    finally:
        over.set()
        polling.join()


def _repeated(metadata: Path, place: Path, images: int, config: TrainingConfig) -> Path:
    """Create a dataset with this many images from one with fewer; return its metadata file.

    An image that is there several times has a file of its own each time, which takes no room of its own.
    """
    counts = {config.train_split: images, config.val_split: images // _VALIDATION}
    known = read_metadata(metadata, list(counts)).splits
    lines: list[str] = []
    for split, count in counts.items():
        folder = place / "data" / split
        folder.mkdir(parents=True)
        paths, labels = known[split].image_paths, known[split].labels
        lines += [f"{split}:", "  samples:"]
        for number in range(count):
            original = number % len(paths)
            file = folder / f"{number:06d}{os.path.splitext(paths[original])[1]}"
            if number < len(paths):
                shutil.copy(paths[original], file)
            else:
                os.link(folder / f"{original:06d}{file.suffix}", file)
            lines += [f"  - image_path: {json.dumps(f'data/{split}/{file.name}')}", f"    label: {labels[original]}"]
    text = f"dataset_info:\n  character_set: {json.dumps(list(CHARACTER_SET), ensure_ascii=False)}\n"
    path = place / "data" / "metadata.yaml"
    path.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    return path
