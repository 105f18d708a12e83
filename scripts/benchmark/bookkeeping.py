"""Time that a study takes in addition to training: claims, suggestions, reports, pruning, checkpoints, notes, tell."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from harness.processes import in_subprocess
from harness.replacement import replace
from rich.table import Table

from benchmark.big_study import grow_study, run_small_study
from benchmark.epochs import train_timed
from benchmark.plan import Figures, Plan, run_in_process, with_fixed_epochs
from benchmark.stopwatch import Lap, Stopwatch, TimedPart, refuse_uncalled
from tuner.display.terminal import plain_table

_TRIALS, _QUICK_TRIALS = 5, 2
_SIZES, _QUICK_SIZES = (20, 100, 1000), (10,)
_WAITING = 20

PER_EPOCH = (
    TimedPart("report", ("optuna.trial.Trial.report",), opaque=True),
    TimedPart("prune decision", ("studies.sampling.pruning.QuantilePruner.prune",), opaque=True),
    TimedPart("checkpoint", ("tuner.training.loop._complete_epoch",), opaque=True),
    TimedPart("logs", ("tuner.training.recorder.Recorder.epoch", "tuner.training.loop._log_epoch"), opaque=True),
)
PER_TRIAL = (
    TimedPart("claim", ("tuner.workers.loop.next_claim",), opaque=True),
    TimedPart("suggest", ("tuner.session.objective._settings",), opaque=True),
    TimedPart(
        "notes and artifacts",
        (
            "tuner.session.dashboard_updates.DashboardUpdates.start",
            "tuner.session.dashboard_updates.DashboardUpdates.show_plots",
            "tuner.session.dashboard_updates.DashboardUpdates.end",
        ),
        opaque=True,
    ),
    TimedPart("tell", ("studies.trials.claims.Claim.finish",), opaque=True),
    TimedPart(
        "delete checkpoints",
        ("tuner.workers.loop.delete_unneeded_checkpoints", "tuner.session.objective.delete_unneeded_checkpoints"),
        opaque=True,
    ),
    TimedPart(
        "poll the study",
        (
            "tuner.session.status_poller.StatusPoller.poll_after_trial",
            "tuner.session.status_poller.StatusPoller.poll_if_due",
        ),
        opaque=True,
    ),
)
# Parts of a training run before its first epoch and after its last epoch.
SET_UP = (
    TimedPart("network and optimizer", ("tuner.training.training_state.TrainingState.create",), opaque=True),
    TimedPart(
        "open and close logs",
        (
            "tuner.training.recorder.Recorder.__init__",
            "tuner.training.recorder.Recorder.ended",
            "tuner.training.recorder.Recorder.close",
        ),
        opaque=True,
    ),
    TimedPart("last plots", ("tuner.training.plots.PlotUpdates.draw",), opaque=True),
)
# Not opaque: time to poll the study during an epoch counts for the part "poll the study".
_EPOCH = TimedPart("training", ("tuner.training.loop.run_epoch",))
_RARE = ("poll the study", "prune decision")


def measure(plan: Plan) -> Figures:
    """Measure the bookkeeping of a few trials in studies of several sizes, and one epoch of a preset for comparison."""
    small = run_small_study(plan)
    trials = _QUICK_TRIALS if plan.quick else _TRIALS
    figures: Figures = {"sizes": {}}
    for size in _QUICK_SIZES if plan.quick else _SIZES:
        plan.log(f"{size:,} trials")
        work_dir = plan.folder / f"study_{size}"
        output = grow_study(small, work_dir, finished=size, waiting=_WAITING, threads=plan.threads)
        arguments = {"output": str(output), "trials": trials}
        figures["sizes"][str(size)] = in_subprocess(train_pending_trials, work_dir, plan.threads, **arguments)
        shutil.rmtree(work_dir)
    config = plan.typical
    plan.log(f"an epoch of {config.experiment_name}")
    settings = asdict(with_fixed_epochs(config, 2))
    epoch = in_subprocess(train_timed, plan.folder, plan.threads, config=settings, work_dir=str(plan.folder / "one"))
    figures["preset"] = {
        "name": config.experiment_name,
        "num_epochs": config.num_epochs,
        "epoch_seconds": epoch["epoch_seconds"],
    }
    return figures


def train_pending_trials(output: str, trials: int) -> Figures:
    """Train some pending trials of a study in this process; return the median seconds per part."""
    watch = Stopwatch()
    claims = 0

    def counted(next_claim: Callable[..., Any]) -> Callable[..., Any]:
        def claim(*arguments: Any) -> Any:
            nonlocal claims
            claims += 1
            return next_claim(*arguments) if claims <= trials else None

        return claim

    replace("tuner.workers.loop.next_claim", counted)
    replace("tuner.workers.loop.wait_until_startable", lambda wait: lambda *arguments: False)
    replace("tuner.workers.loop._wait_for_others", lambda wait: lambda *arguments: False)
    watch.time((*PER_EPOCH, *PER_TRIAL, *SET_UP, _EPOCH))
    watch.lap_before("tuner.workers.loop.next_claim")
    run_in_process("resume", "--output-dir", output)
    expected = (*PER_EPOCH, *PER_TRIAL, *SET_UP)
    refuse_uncalled(watch.laps, [item.part for item in expected if item.part not in _RARE])
    return {
        "epoch": {item.part: _median(watch.laps, item.part, _epochs) for item in PER_EPOCH},
        "trial": {item.part: _median(watch.laps, item.part) for item in PER_TRIAL},
        "set_up": {item.part: _median(watch.laps, item.part) for item in SET_UP}
        | {"rest": statistics.median(lap.seconds - sum(lap.parts.values()) for lap in watch.laps)},
    }


def tables(figures: Figures) -> list[Table]:
    """Return a table of the milliseconds per part and study size, with ratios to the training time of a preset."""
    sizes = figures["sizes"]
    table = plain_table(
        "ms, in a study of", *(f"{int(size):,} trials" for size in sizes), right=tuple(range(1, 1 + len(sizes)))
    )
    for group, title in (("epoch", "per epoch"), ("trial", "per trial"), ("set_up", "per training run")):
        for part in next(iter(sizes.values()))[group]:
            table.add_row(f"{title}: {part}", *(_ms(found[group][part]) for found in sizes.values()))
        table.add_row(f"{title}: total", *(_ms(sum(found[group].values())) for found in sizes.values()))
    preset = figures["preset"]
    epoch, epochs = preset["epoch_seconds"], preset["num_epochs"]
    shares = (
        (f"per epoch, relative to the time of one epoch of {preset['name']}", "epoch", epoch),
        (f"per trial, relative to the time of {epochs} epochs of {preset['name']}", "trial", epoch * epochs),
        (f"per training run, relative to the time of {epochs} epochs of {preset['name']}", "set_up", epoch * epochs),
    )
    for title, group, whole in shares:
        table.add_row(title, *(f"{sum(found[group].values()) / whole:.2%}" for found in sizes.values()))
    return [table]


def _epochs(lap: Lap) -> int:
    return lap.calls.get(_EPOCH.part, 0)


def _median(laps: list[Lap], part: str, times: Callable[[Lap], int] = lambda lap: 1) -> float:
    return statistics.median(lap.parts.get(part, 0.0) / max(1, times(lap)) for lap in laps)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"
