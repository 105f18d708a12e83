"""Seconds from the start of a command to the end of the first epoch that meets both accuracy targets."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.processes import command, compute_environment, failure, started
from harness.run import HarnessError
from rich.table import Table

from benchmark.plan import Figures, Plan, write_experiments
from search_spaces import Targets, TrainingConfig
from tuner.display.terminal import plain_table

_POLL_S = 0.01
_TIMEOUT_S = 300.0
_CACHE = ".pixel_cache"
# Low, because with few images and epochs, a network learns only the length of the labels.
_QUICK_TARGETS = Targets(character_accuracy=0.01)
_QUICK_EPOCHS = 8


def measure(plan: Plan) -> Figures:
    """Measure the seconds until each preset meets the targets, with and without an existing pixel cache."""
    targets = _QUICK_TARGETS if plan.quick else plan.targets
    if targets.character_accuracy is None and targets.sequence_accuracy is None:
        raise HarnessError(
            f"{plan.config}: found no accuracy target; add 'targets.character_accuracy' or 'targets.sequence_accuracy'"
        )
    figures: Figures = {
        "character_accuracy": targets.character_accuracy,
        "sequence_accuracy": targets.sequence_accuracy,
        "presets": {},
    }
    for name, config in plan.presets.items():
        shortened = replace(config, num_epochs=_QUICK_EPOCHS) if plan.quick else config
        figures["presets"][name] = {}
        for start in ("cache made", "cache not made"):
            plan.log(f"{name}, {start}")
            work_dir = plan.folder / f"{name} {start}"
            work_dir.mkdir()
            fresh = start == "cache not made"
            metadata = _without_cache(plan.metadata, work_dir) if fresh else plan.metadata
            config_with_data = replace(shortened, metadata_path=str(metadata))
            figures["presets"][name][start] = _until_met(config_with_data, targets, work_dir, plan.threads)
            shutil.rmtree(work_dir)
    return figures


def tables(figures: Figures) -> list[Table]:
    """Return a table of the seconds and epochs until the targets were met."""
    wanted = f"char {figures['character_accuracy']}, seq {figures['sequence_accuracy']}".replace("None", "any")
    table = plain_table(f"until {wanted}", "", "seconds", "epochs", "s before epoch 1", right=(2, 3, 4))
    for name, starts in figures["presets"].items():
        for start, found in starts.items():
            seconds = (
                f"not within {found['seconds_in_all']:.1f}" if found["seconds"] is None else f"{found['seconds']:.1f}"
            )
            table.add_row(name, start, seconds, str(found["epochs"]), f"{found['start_up_seconds']:.1f}")
    return [table]


def _without_cache(metadata: Path, work_dir: Path) -> Path:
    """Copy a dataset without its pixel cache; return the metadata file of the copy."""
    # The copied folder keeps its name, because image paths are relative to the dataset's parent folder.
    copied = shutil.copytree(metadata.parent, work_dir / metadata.parent.name, ignore=shutil.ignore_patterns(_CACHE))
    return copied / metadata.name


def _until_met(config: TrainingConfig, targets: Targets, work_dir: Path, threads: int) -> Figures:
    """Run an experiment until an epoch meets the targets; return the seconds and epochs."""
    name = config.experiment_name
    file = write_experiments(work_dir / "experiments.yaml", {name: config}, targets)
    arguments = command("run", "--config", str(file), "--experiments", name, "--output-dir", "out", "--until-targets")
    metrics = work_dir / "out" / name / "metrics.jsonl"
    started_at = time.perf_counter()
    first_epoch_s, epochs, met = None, 0, False
    with started(arguments, work_dir, **compute_environment(work_dir, threads)) as process:
        running = True
        while running and not met and time.perf_counter() - started_at < _TIMEOUT_S:
            time.sleep(_POLL_S)
            running = process.poll() is None  # before reading the file, so that its last lines are read, too
            for epoch in _epochs(metrics, after=epochs):
                seconds = time.perf_counter() - started_at
                first_epoch_s = first_epoch_s or seconds - epoch["epoch_seconds"]
                epochs += 1
                met = met or _meets(epoch, targets)
        if process.poll():
            raise failure(arguments, work_dir, process.returncode)
    if not epochs:
        raise HarnessError(f"{name}: no epoch finished within {_TIMEOUT_S:.0f} s")
    return {
        "seconds": seconds if met else None,
        "seconds_in_all": seconds,
        "epochs": epochs,
        "start_up_seconds": first_epoch_s,
    }


def _epochs(metrics: Path, after: int) -> Iterator[dict[str, float]]:
    """Yield the metrics of the epochs in a file, without the first `after` epochs and an incomplete last line."""
    if metrics.exists():
        whole, _, _ = metrics.read_text(encoding="utf-8").rpartition("\n")
        yield from map(json.loads, whole.splitlines()[after:])


def _meets(epoch: dict[str, float], targets: Targets) -> bool:
    return epoch["val_char_accuracy"] >= (targets.character_accuracy or 0.0) and epoch["val_seq_accuracy"] >= (
        targets.sequence_accuracy or 0.0
    )
