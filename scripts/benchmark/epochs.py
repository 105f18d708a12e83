"""Seconds per epoch and fraction of the epoch per part."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.processes import in_subprocess
from rich.table import Table

from benchmark.plan import Figures, Plan, train_in_process, with_fixed_epochs
from benchmark.stopwatch import Lap, Stopwatch, TimedPart, refuse_uncalled
from search_spaces import TrainingConfig
from tuner.display.terminal import plain_table

TIMED_PARTS = (
    TimedPart("data", ("tuner.data.batches.SplitBatches._gather",)),
    TimedPart("augmentation", ("tuner.data.batches.augment", "tuner.data.batches.SplitBatches._distortions")),
    TimedPart(
        "forward",
        (
            "tuner.models.network.OCRNetwork.forward",
            "tuner.training.losses.CrossEntropy.forward",
            "tuner.training.losses.FocalLoss.forward",
            "tuner.training.losses.CTCLoss.forward",
        ),
    ),
    TimedPart("backward", ("torch.autograd.backward",)),
    # The rest of a step: gradient clipping, update of the weights and of their EMA.
    TimedPart("optimizer", ("tuner.training.epoch.train_step",)),
    # Includes assembling the validation batches and counting correct readings.
    TimedPart("validation", ("tuner.training.training_state.score_split",), opaque=True),
    TimedPart("metrics", ("tuner.training.validation.Accuracy.update", "tuner.models.network.OCRNetwork.read")),
    TimedPart(
        "logging",
        (
            "tuner.training.recorder.Recorder.step",
            "tuner.training.recorder.Recorder.epoch",
            "tuner.training.recorder.Recorder.system_use",
            "tuner.training.loop._log_epoch",
            "tuner.display.displays.ProgressDisplay.batch",
            "tuner.display.displays.ProgressDisplay.epoch_ended",
        ),
        opaque=True,
    ),
    TimedPart("checkpoint", ("tuner.training.loop._complete_epoch",), opaque=True),
    TimedPart(
        "plots",
        (
            "tuner.training.plots.PlotUpdates.draw",
            "tuner.training.recorder.Recorder.plots",
            "tuner.session.dashboard_updates.DashboardUpdates.show_plots",
        ),
        opaque=True,
    ),
    TimedPart(
        "study",
        (
            "optuna.trial.Trial.report",
            "studies.sampling.pruning.QuantilePruner.prune",
            "tuner.session.dashboard_updates.DashboardUpdates.epoch_ended",
            "tuner.session.status_poller.StatusPoller.poll_if_due",
        ),
        opaque=True,
    ),
)
_ARITHMETIC = ("forward", "backward", "optimizer", "validation")
_SHOWN = ("data", "augmentation", *_ARITHMETIC, "metrics", "logging", "checkpoint", "plots", "study", "rest")
# Parts that some epochs do not have.
_RARE = ("plots", "augmentation")


def measure(plan: Plan) -> Figures:
    """Train each preset and each model on the CPU for a warm-up epoch and one or two measured epochs."""
    figures: Figures = {}
    for name, config in (plan.presets | plan.models).items():
        plan.log(name)
        settings = asdict(with_fixed_epochs(config, 2 if plan.quick else 3))
        work_dir = plan.folder / f"cpu {name}"
        work_dir.mkdir()
        run = in_subprocess(train_timed, work_dir, plan.threads, config=settings, work_dir=str(work_dir / "timed"))
        figures[name] = _summary(run)
    return figures


def train_timed(config: dict[str, Any], work_dir: str) -> Figures:
    """Train an experiment with the real command here; return the mean times of all epochs after the first."""
    settings = TrainingConfig(**config)
    watch = Stopwatch()
    watch.lap_before("tuner.training.loop._reason_to_end")
    watch.time(TIMED_PARTS)
    train_in_process(settings, Path(work_dir))
    laps = watch.laps[1:]
    refuse_uncalled(laps, [item.part for item in TIMED_PARTS if item.part not in _RARE])
    return {
        "images": _training_images(settings),
        "epoch_seconds": statistics.fmean(lap.seconds for lap in laps),
        "parts": _parts(laps),
    }


def tables(figures: Figures) -> list[Table]:
    """Return two tables: epochs, and parts of an epoch."""
    return [_epoch_table(figures), _part_table(figures)]


def _training_images(config: TrainingConfig) -> int:
    from tuner.data.pixel_cache import open_pixel_cache

    return len(open_pixel_cache(config.metadata_path, [config.train_split])[config.train_split])


def _parts(laps: list[Lap]) -> dict[str, float]:
    """Return the mean seconds per epoch of each part; `rest` is the time outside all parts."""
    parts = {part: statistics.fmean(lap.parts.get(part, 0.0) for lap in laps) for part in _SHOWN}
    parts["rest"] = statistics.fmean(lap.seconds for lap in laps) - sum(parts.values())
    return parts


def _summary(run: Figures) -> Figures:
    parts, whole = run["parts"], run["epoch_seconds"]
    outside = whole - sum(parts[part] for part in _ARITHMETIC)
    return {
        "epoch_seconds": whole,
        "images_per_s": run["images"] / whole,
        "parts": parts,
        "beside_arithmetic": outside / whole,
        "beside_arithmetic_and_augmentation": (outside - parts["augmentation"]) / whole,
    }


def _epoch_table(figures: Figures) -> Table:
    headers = ("preset or model", "s/epoch", "images/s", "outside arithmetic", "outside arithmetic and augmentation")
    table = plain_table(*headers, right=(1, 2, 3, 4))
    for name, figure in figures.items():
        table.add_row(
            name,
            f"{figure['epoch_seconds']:.2f}",
            f"{figure['images_per_s']:.0f}",
            f"{figure['beside_arithmetic']:.1%}",
            f"{figure['beside_arithmetic_and_augmentation']:.1%}",
        )
    return table


def _part_table(figures: Figures) -> Table:
    table = plain_table("fraction of an epoch", *_SHOWN, right=tuple(range(1, 1 + len(_SHOWN))))
    for name, figure in figures.items():
        whole = sum(figure["parts"].values())
        table.add_row(name, *(f"{figure['parts'][part] / whole:.1%}" for part in _SHOWN))
    return table
