"""Seconds per command on studies of many trials, compared with the first reading of the trials by Optuna alone."""

from __future__ import annotations

import csv
import importlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.processes import command, seconds_of
from harness.replacement import replace
from harness.run import HarnessError
from rich.table import Table

from benchmark.big_study import OUTPUT, grow_study, run_small_study
from benchmark.plan import Figures, Plan
from tuner.display.terminal import plain_table

_SIZES, _QUICK_SIZES = (100, 1000, 10_000), (20,)
_WAITING = 20
_BASELINE = "Optuna's own first reading"
_COMMANDS = {
    "status": command("status", "--output-dir", OUTPUT),
    "export, json": command("export", "--output-dir", OUTPUT, "--results-file", "results.json"),
    "export, csv": command("export", "--format", "csv", "--output-dir", OUTPUT, "--results-file", "trials.csv"),
}
_WORKER = "worker to its first claim"
_WORKER_BASELINE = "the same, with a worker's imports"


def measure(plan: Plan) -> Figures:
    """Measure the seconds from start to exit of each command, in a new process, on studies of several sizes."""
    small = run_small_study(plan)
    figures: Figures = {}
    for size in _QUICK_SIZES if plan.quick else _SIZES:
        work_dir = plan.folder / f"scale_{size}"
        plan.log(f"{size:,} trials")
        grow_study(small, work_dir, finished=size, waiting=_WAITING, threads=plan.threads)
        figures[str(size)] = _seconds(plan, work_dir, repeat=size <= 1000 and not plan.quick)
        _check_export(work_dir / "trials.csv", size + _WAITING)
        shutil.rmtree(work_dir)
    return figures


def tables(figures: Figures) -> list[Table]:
    """Return a table of the seconds per command and study size, in comparison with only reading the study."""
    table = plain_table(
        "seconds (difference and ratio to only reading the study)", *(f"{int(size):,} trials" for size in figures)
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name in next(iter(figures.values())):
        table.add_row(name, *(_cell(name, found) for found in figures.values()))
    return [table]


def _cell(name: str, found: dict[str, float]) -> str:
    seconds = found[name]
    if name in (_BASELINE, _WORKER_BASELINE):
        return f"{seconds:.2f}"
    baseline = found[_WORKER_BASELINE if name == _WORKER else _BASELINE]
    return f"{seconds:.2f} ({seconds - baseline:+.2f}, {seconds / baseline:.2f} x)"


def _seconds(plan: Plan, work_dir: Path, *, repeat: bool) -> dict[str, float]:
    """Run each command, twice if `repeat`; return the minimum seconds, keyed by the command's title."""
    this = "benchmark.scale"
    commands = {
        _BASELINE: ["-m", this, "read"],
        _WORKER_BASELINE: ["-m", this, "import"],
        **_COMMANDS,
        _WORKER: ["-m", this, "claim"],
    }
    return {
        name: min(seconds_of(arguments, work_dir, plan.threads) for _ in range(2 if repeat else 1))
        for name, arguments in commands.items()
    }


def _check_export(path: Path, trials: int) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = sum(1 for _ in csv.DictReader(file))
    if rows != trials:
        raise HarnessError(f"wrong number of trials in {path.name}: found {rows:,}, expected {trials:,}")


def _read() -> None:
    """Read all trials with Optuna alone."""
    import optuna

    storage = optuna.storages.get_storage(f"sqlite:///{OUTPUT}/study.db")
    optuna.load_study(study_name=None, storage=storage).get_trials(deepcopy=False)


def _import() -> None:
    """Import the modules of a worker, then read the study."""
    importlib.import_module("tuner.workers.run_study")
    _read()


def _claim() -> None:
    """Run a worker that exits as soon as it has claimed a trial."""
    from tuner.__main__ import main

    def exiting(next_claim: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: os._exit(0 if next_claim(*arguments) is not None else 1)

    replace("tuner.workers.loop.next_claim", exiting)
    sys.exit(main(["resume", "--output-dir", OUTPUT, "--results-file", "results.json"]) or 1)


if __name__ == "__main__":
    {"read": _read, "import": _import, "claim": _claim}[sys.argv[1]]()
