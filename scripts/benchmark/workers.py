"""Trials per hour with one worker and with several workers that share the cores or a GPU."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import replace

from harness.processes import command, seconds_of
from rich.table import Table

from benchmark.plan import Figures, Plan, with_fixed_epochs, write_experiments
from studies import load_study
from tuner.cores import usable_cores
from tuner.display.terminal import plain_table

_TRIALS_PER_WORKER = 2


def measure(plan: Plan) -> Figures:
    """Measure the trials per hour with 1, 2, 4, ... workers, up to one worker per core."""
    cores = usable_cores()
    counts = [2**power for power in range(cores.bit_length()) if 2**power < cores]
    return measure_on(plan, "cpu", [*counts, cores], epochs=1 if plan.quick else 2)


def measure_on(plan: Plan, device: str, counts: Sequence[int], epochs: int) -> Figures:
    """Train short trials of one preset with the real command on a device, with several numbers of workers.

    The rate is measured from the start of the first trial to the end of the last, without the start-up of the command.
    """
    figures: Figures = {"preset": plan.typical.experiment_name, "epochs": epochs, "workers": {}}
    for count in counts:
        plan.log(f"{count} of {max(counts)} workers on {device}")
        work_dir = plan.folder / f"{device} {count} workers"
        work_dir.mkdir()
        config = with_fixed_epochs(plan.typical, epochs, device)
        trials = {
            f"trial_{number}": replace(config, experiment_name=f"trial_{number}")
            for number in range(_TRIALS_PER_WORKER * count)
        }
        file = write_experiments(work_dir / "experiments.yaml", trials)
        arguments = command("run", "--config", str(file), "--output-dir", "out", "--workers", str(count))
        whole = seconds_of([*arguments, "--results-file", "results.json"], work_dir, plan.threads)
        finished = load_study(work_dir / "out")[0].get_trials(deepcopy=False)
        started_at = min(trial.datetime_start for trial in finished if trial.datetime_start)
        ended_at = max(trial.datetime_complete for trial in finished if trial.datetime_complete)
        seconds = (ended_at - started_at).total_seconds()
        figures["workers"][str(count)] = {
            "trials": len(trials),
            "trials_per_hour": 3600 * len(trials) / seconds,
            "seconds_beside_trials": whole - seconds,
            "epoch_seconds": statistics.median(
                trial.user_attrs["outcome"]["epoch_seconds_median"] for trial in finished
            ),
        }
        shutil.rmtree(work_dir)
    return figures


def tables(figures: Figures) -> list[Table]:
    """Return a table of trials per hour, also relative to one worker."""
    headers = (
        f"workers ({figures['preset']}, {figures['epochs']} epochs)",
        "trials/h",
        "vs. 1 worker",
        "s/epoch",
        "outside trials, s",
    )
    table = plain_table(*headers, right=(0, 1, 2, 3, 4))
    one = next(iter(figures["workers"].values()))["trials_per_hour"]
    for count, found in figures["workers"].items():
        table.add_row(
            count,
            f"{found['trials_per_hour']:.0f}",
            f"{found['trials_per_hour'] / one:.2f}",
            f"{found['epoch_seconds']:.2f}",
            f"{found['seconds_beside_trials']:.1f}",
        )
    return [table]
