"""Time to open a dataset of many images, and time and memory of a worker that trains on it."""

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
from harness.processes import in_subprocess
from harness.replacement import replace
from rich.table import Table

from benchmark.plan import Figures, Plan, train_in_process, with_fixed_epochs
from benchmark.stopwatch import Stopwatch, TimedPart, refuse_uncalled
from search_spaces import TrainingConfig
from tuner.data.metadata import read_metadata
from tuner.data.pixel_cache import open_pixel_cache
from tuner.display.terminal import plain_table

# The larger of the two datasets.
_IMAGES, _QUICK_IMAGES = 100_000, 400
_TRAINING_IMAGES_PER_VALIDATION_IMAGE = 10
_BYTES_PER_IMAGE = 12_000
_OPENINGS, _QUICK_OPENINGS = 3, 1
_EPOCHS = 3
_POLL_S = 0.25
_TRAINING = TimedPart("training", ("tuner.training.epoch.train_epoch",), opaque=True)
_VALIDATING = TimedPart("validation", ("tuner.training.epoch.score_split",), opaque=True)


def measure(plan: Plan) -> Figures:
    """Measure opening and training for two datasets, the second ten times as large as the first."""
    most = _QUICK_IMAGES if plan.quick else _IMAGES
    needed, free = most * _BYTES_PER_IMAGE, shutil.disk_usage(plan.folder).free
    if free < needed:
        space = f"found {free / 1e9:.1f} GB free in {plan.folder.parent}; expected {needed / 1e9:.1f} GB"
        return {"skipped": f"{space}; set TMPDIR to a folder on a larger disk"}
    figures: Figures = {}
    for images in (most // 10, most):
        plan.log(f"{images:,} images")
        work_dir = plan.folder / f"images_{images}"
        config = plan.typical
        metadata = _repeated(plan.metadata, work_dir, images, config)
        started_at = time.perf_counter()
        open_pixel_cache(metadata, [config.train_split, config.val_split])
        first = time.perf_counter() - started_at
        splits = [config.train_split, config.val_split]
        arguments = {"metadata": str(metadata), "splits": splits}
        openings = [
            in_subprocess(seconds_to_open, work_dir, plan.threads, **arguments)
            for _ in range(_QUICK_OPENINGS if plan.quick else _OPENINGS)
        ]
        settings = asdict(with_fixed_epochs(config, _EPOCHS, "cpu")) | {"metadata_path": str(metadata)}
        batches = 3 if plan.quick else 60
        trained = in_subprocess(
            train_some, work_dir, plan.threads, config=settings, work_dir=str(work_dir), batches=batches
        )
        figures[str(images)] = {"first_opening_seconds": first, "opening_seconds": min(openings)} | trained
        shutil.rmtree(work_dir)
    return figures


def tables(figures: Figures) -> list[Table]:
    """Return a table of the figures of both datasets, and their ratios."""
    table = plain_table("training images", *(f"{int(images):,}" for images in figures), "ratio", right=(1, 2, 3))
    rows = (
        ("first opening (decodes images), s", "first_opening_seconds", 1.0, ".2f"),
        ("opening from the cache, s", "opening_seconds", 1.0, ".3f"),
        ("training, ms per image", "training_seconds_per_image", 1e3, ".3f"),
        ("validation, ms per image", "validation_seconds_per_image", 1e3, ".3f"),
        ("maximum memory of a worker (PSS), MB", "peak_pss_mb", 1.0, ".0f"),
        ("maximum unshared memory of a worker (USS), MB", "peak_uss_mb", 1.0, ".0f"),
    )
    small, large = figures.values()
    for title, name, factor, form in rows:
        shown = [f"{found[name] * factor:{form}}" for found in (small, large)]
        table.add_row(title, *shown, f"{large[name] / small[name]:.2f}")
    return [table]


def seconds_to_open(metadata: str, splits: list[str]) -> float:
    """Open a dataset in this process; return the duration in seconds."""
    started_at = time.perf_counter()
    open_pixel_cache(metadata, splits)
    return time.perf_counter() - started_at


def train_some(config: dict[str, Any], work_dir: str, batches: int) -> Figures:
    """Train epochs of `batches` batches in this process; return the times of the last epoch and the maximum memory."""
    settings = TrainingConfig(**config)

    def cut_short(epochs: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        # Validation passes 0 as its epoch and is not shortened.
        return lambda batches_of, epoch: itertools.islice(epochs(batches_of, epoch), batches if epoch else None)

    replace("tuner.data.batches.SplitBatches.epoch", cut_short)
    watch = Stopwatch()
    watch.time((_TRAINING, _VALIDATING))
    watch.lap_before("tuner.training.loop._reason_to_end")
    with _peak_memory() as memory:
        train_in_process(settings, Path(work_dir))
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
def _peak_memory() -> Iterator[dict[str, int]]:
    """Poll the memory of this process during the block; yield a dictionary of the maximum PSS and USS in bytes."""
    most = {"pss": 0, "uss": 0}
    stop = threading.Event()
    process = psutil.Process()

    def poll() -> None:
        while not stop.wait(_POLL_S):
            memory = process.memory_full_info()
            most["uss"] = max(most["uss"], memory.uss)
            most["pss"] = max(most["pss"], getattr(memory, "pss", memory.rss))  # only Linux has PSS

    polling = threading.Thread(target=poll)
    polling.start()
    try:
        yield most
    finally:
        stop.set()
        polling.join()


def _repeated(metadata: Path, work_dir: Path, images: int, config: TrainingConfig) -> Path:
    """Create a dataset of `images` training images by repeating those of a smaller one; return the new metadata file.

    Repeated images are hard links, which need no disk space.
    """
    counts = {config.train_split: images, config.val_split: images // _TRAINING_IMAGES_PER_VALIDATION_IMAGE}
    known = read_metadata(metadata, list(counts)).splits
    lines: list[str] = []
    for split, count in counts.items():
        folder = work_dir / "data" / split
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
    path = work_dir / "data" / "metadata.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
