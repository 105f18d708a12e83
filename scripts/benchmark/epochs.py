"""Seconds per epoch, fraction of the epoch per part, and fraction of the machine's rate that training reaches."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.processes import in_subprocess
from rich.table import Table

from benchmark.machine import repeats_in
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
    TimedPart("validation", ("tuner.training.epoch.score_split",), opaque=True),
    TimedPart("metrics", ("tuner.training.validation.Accuracy.update", "tuner.models.network.OCRNetwork.read")),
    TimedPart(
        "logging",
        (
            "tuner.training.recorder.Recorder.step",
            "tuner.training.recorder.Recorder.epoch",
            "tuner.training.recorder.Recorder.system_use",
            "tuner.training.loop._log_epoch",
            "tuner.display.plain.ProgressDisplay.batch",
            "tuner.display.plain.ProgressDisplay.epoch_ended",
        ),
        opaque=True,
    ),
    TimedPart("checkpoint", ("tuner.training.loop._complete_epoch",), opaque=True),
    TimedPart(
        "plots",
        (
            "tuner.training.plot_updates.PlotUpdates.draw",
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

_PROFILED_STEPS = 8


def measure(plan: Plan) -> Figures:
    """Measure the seconds per epoch of each preset and each model on the CPU."""
    return measure_on(plan, "cpu", epochs=1 if plan.quick else 2)


def measure_on(plan: Plan, device: str, epochs: int) -> Figures:
    """Train each preset and each model on a device for one warm-up epoch and `epochs` measured epochs.

    On a GPU, the stopwatch synchronizes the device, which slows training down. There, the seconds per epoch come from
    a second training run without stopwatch.
    """
    figures: Figures = {}
    for name, config in (plan.presets | plan.models).items():
        plan.log(name)
        settings = asdict(with_fixed_epochs(config, 1 + epochs, device))
        work_dir = plan.folder / f"{device} {name}"
        work_dir.mkdir()
        timed_run = in_subprocess(
            train_timed, work_dir, plan.threads, config=settings, work_dir=str(work_dir / "timed"), timed=True
        )
        untimed_run = timed_run
        if device != "cpu":
            untimed_run = in_subprocess(
                train_timed, work_dir, plan.threads, config=settings, work_dir=str(work_dir / "untimed"), timed=False
            )
        steps = 2 if plan.quick else _PROFILED_STEPS
        arguments = {"config": settings, "steps": steps, "repeats": repeats_in(plan)}
        kernels = in_subprocess(profile, work_dir, plan.threads, **arguments)
        figures[name] = _summary(timed_run, untimed_run, kernels)
    return figures


def train_timed(config: dict[str, Any], work_dir: str, timed: bool) -> Figures:
    """Train an experiment with the real command in this process; return the mean times of all epochs after the first.

    The parts of the epochs are only measured if `timed`.
    """
    settings = TrainingConfig(**config)
    watch = Stopwatch(_synchronizer_of(settings.device) if timed else lambda: None)
    watch.lap_before("tuner.training.loop._reason_to_end")
    if timed:
        watch.time(TIMED_PARTS)
    train_in_process(settings, Path(work_dir))
    laps = watch.laps[1:]
    if timed:
        refuse_uncalled(laps, [item.part for item in TIMED_PARTS if item.part not in _RARE])
    return {
        "images": _training_images(settings),
        "epoch_seconds": statistics.fmean(lap.seconds for lap in laps),
        "parts": _parts(laps),
    }


def profile(config: dict[str, Any], steps: int, repeats: int) -> Figures:
    """Return the kernel rates of `steps` training steps, profiled in this process."""
    from benchmark.kernels import profile_steps

    return profile_steps(TrainingConfig(**config), steps, repeats)


def tables(figures: Figures) -> list[Table]:
    """Return four tables: epochs, parts of an epoch, rates, and kernels."""
    return [_epoch_table(figures), _part_table(figures), _rate_table(figures), _kernel_table(figures)]


def _synchronizer_of(device: str) -> Any:
    import torch

    from benchmark.machine import synchronizer_of

    return synchronizer_of(torch.device(device))


def _training_images(config: TrainingConfig) -> int:
    from tuner.data.pixel_cache import open_pixel_cache

    return len(open_pixel_cache(config.metadata_path, [config.train_split])[config.train_split])


def _parts(laps: list[Lap]) -> dict[str, float]:
    """Return the mean seconds per epoch of each part; `rest` is the time outside all parts."""
    parts = {part: statistics.fmean(lap.parts.get(part, 0.0) for lap in laps) for part in _SHOWN}
    parts["rest"] = statistics.fmean(lap.seconds for lap in laps) - sum(parts.values())
    return parts


def _summary(timed_run: Figures, untimed_run: Figures, kernels: Figures) -> Figures:
    parts, whole = timed_run["parts"], timed_run["epoch_seconds"]
    outside = whole - sum(parts[part] for part in _ARITHMETIC)
    step = sum(parts[part] for part in ("forward", "backward", "optimizer"))
    gflops = kernels["gflop_per_image"] * timed_run["images"] / step
    seconds = untimed_run["epoch_seconds"]
    return {
        "epoch_seconds": seconds,
        "images_per_s": untimed_run["images"] / seconds,
        "parts": parts,
        "beside_arithmetic": outside / whole,
        "beside_arithmetic_and_augmentation": (outside - parts["augmentation"]) / whole,
        "gflops": gflops,
        "share_of_rate": gflops / kernels["rate"]["gflops"],
        "share_of_matrix_rate": gflops / kernels["rate"]["matrix_gflops"],
        "kernels": kernels,
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


def _rate_table(figures: Figures) -> Table:
    headers = (
        "training steps of",
        "GFLOP/s",
        "% of best rate",
        "% of torch.mm",
        "% of best rate, steps alone",
        "best rate, GFLOP/s",
        "possible speed-up",
    )
    table = plain_table(*headers, right=(1, 2, 3, 4))
    for name, figure in figures.items():
        rate = figure["kernels"]["rate"]
        table.add_row(
            name,
            f"{figure['gflops']:.0f}",
            f"{figure['share_of_rate']:.1%}",
            f"{figure['share_of_matrix_rate']:.1%}",
            f"{figure['kernels']['share']:.1%}",
            f"{rate['gflops']:.0f}, {rate['by']}, {figure['kernels']['precision']}",
            f"{1 / figure['kernels']['bound_share']:.1f} x",
        )
    return table


def _kernel_table(figures: Figures) -> Table:
    headers = ("kernels of a training step", "kind", "% of step", "GFLOP/s", "GB/s", "limited by", "% of limit")
    table = plain_table(*headers, right=(2, 3, 4, 6))
    for name, figure in figures.items():
        kernels = figure["kernels"]
        for kind, found in sorted(kernels["kinds"].items(), key=lambda item: -item[1]["seconds"]):
            reached = found["bound_seconds"] / found["seconds"] if found["seconds"] else 0.0
            table.add_row(
                name,
                kind,
                f"{found['seconds'] / kernels['step_seconds']:.1%}",
                f"{found['gflops']:.0f}",
                f"{found['gb_s']:.1f}",
                found["bound_by"],
                f"{reached:.0%}" if found["bound_seconds"] else "",
            )
            name = ""
    return table
