"""Seconds per epoch while other processes load the CPU, by threads, workers and OpenMP spin count."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from harness.processes import command, seconds_of
from rich.table import Table

from benchmark.plan import Figures, Plan, with_fixed_epochs, write_experiments
from studies import load_study
from tuner.display.terminal import plain_table

_BUSY_PROCESSES = (0, 1, 2)
_EPOCHS = 3


@dataclass(frozen=True)
class _Way:
    """A way to use the cores: threads per worker, number of workers, and spin count of idle OpenMP threads."""

    threads: int
    workers: int = 1
    spin_count: int = 1000


def measure(plan: Plan) -> Figures:
    """Train one preset in each way, next to 0, 1 and 2 processes that occupy one core each."""
    ways = {
        "OpenMP's own spin, 300,000": _Way(plan.threads, spin_count=300_000),
        "spin 10,000": _Way(plan.threads, spin_count=10_000),
        "spin 1,000, as this program": _Way(plan.threads),
        "spin 100": _Way(plan.threads, spin_count=100),
        "no spin (OMP_WAIT_POLICY=passive)": _Way(plan.threads, spin_count=0),
        "one thread": _Way(1),
        f"{plan.threads} workers of one thread": _Way(1, workers=plan.threads),
    }
    if plan.quick:
        ways = dict(list(ways.items())[-1:])
    figures: Figures = {"preset": plan.typical.experiment_name, "epochs": 1 if plan.quick else _EPOCHS, "ways": {}}
    for name, way in ways.items():
        figures["ways"][name] = {}
        for processes in _BUSY_PROCESSES[: 2 if plan.quick else None]:
            plan.log(f"{name}, busy processes: {processes}")
            with _busy(processes):
                figures["ways"][name][str(processes)] = _seconds(plan, way, figures["epochs"])
    return figures


def tables(figures: Figures) -> list[Table]:
    """Return a table of the seconds per epoch, divided by the number of trials that train in parallel."""
    ways = figures["ways"]
    busy = list(next(iter(ways.values())))
    headers = [f"seconds per epoch ({figures['preset']})", *(f"busy processes: {count}" for count in busy)]
    table = plain_table(*headers, right=tuple(range(1, 1 + len(busy))))
    for name, found in ways.items():
        table.add_row(name, *(f"{found[count]:.2f}" for count in busy))
    return [table]


@contextmanager
def _busy(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _seconds(plan: Plan, way: _Way, epochs: int) -> float:
    work_dir = plan.folder / "busy"
    work_dir.mkdir()
    config = with_fixed_epochs(plan.typical, epochs, "cpu")
    trials = {f"trial_{number}": replace(config, experiment_name=f"trial_{number}") for number in range(way.workers)}
    file = write_experiments(work_dir / "experiments.yaml", trials)
    arguments = command("run", "--config", str(file), "--output-dir", "out", "--workers", str(way.workers))
    seconds_of(arguments, work_dir, way.threads * way.workers, GOMP_SPINCOUNT=str(way.spin_count))
    finished = load_study(work_dir / "out")[0].get_trials(deepcopy=False)
    shutil.rmtree(work_dir)
    return statistics.mean(trial.user_attrs["outcome"]["epoch_seconds_median"] for trial in finished) / way.workers
