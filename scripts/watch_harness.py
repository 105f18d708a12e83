#!/usr/bin/env python3
"""Poll a study in a loop while it is running, and check that it equals a study that was not polled.

Two workers train the same experiments in two studies, one after the other. Dashboard, status, export and report read
the first study in a loop, also while the second study is running, so that polling uses the same CPU time in both. No
poll may fail, and the two studies must be equal bit for bit. The ratios of the epoch times show whether polling slows
training down. The harness also tries to change the study through the dashboard, which must refuse.

Example: python scripts/watch_harness.py --minutes 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.fixture_study import STORAGE_VARIABLE
from harness.polling import Polls
from harness.processes import command, seconds_of
from harness.run import DIFFERENT, EQUAL, option_parser, run_harness
from harness.snapshot import differences, take_snapshot
from observers.study import EXPERIMENTS, WORKERS, epochs_of, poll_during, training, write_experiments

SAMPLES = 400
TRIAL_EPOCHS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the harness; return the exit code."""
    parser = option_parser(__doc__)
    parser.add_argument(
        "--minutes",
        type=float,
        default=5.0,
        help="approximate training time of each of the two studies without polling (default: %(default)s)",
    )
    os.environ.pop(STORAGE_VARIABLE, None)
    return run_harness(parser.parse_args(argv), "watch_harness_", _watch, in_memory=False)


def _watch(options: argparse.Namespace, folder: Path) -> int:
    size = ["--samples", str(SAMPLES), "--test-samples", "10"]
    seconds_of(command("data", *size, "--seed", str(options.seed), "--out", "data"), folder, threads=1)
    seconds = _seconds_per_epoch(folder)
    epochs = max(2, round(options.minutes * 60 * WORKERS / EXPERIMENTS / seconds))
    print(f"{EXPERIMENTS} experiments of {epochs} epochs, {seconds:.2f} s per epoch, {WORKERS} workers", flush=True)
    experiments = folder / "experiments.yaml"
    write_experiments(experiments, epochs)
    watched, unwatched = folder / "watched", folder / "unwatched"
    polls = []
    for study in (watched, unwatched):
        with training(study, experiments) as process:
            polls.append(poll_during(process, watched))
    return _report(watched, unwatched, polls)


def _seconds_per_epoch(folder: Path) -> float:
    """Run a short study with two workers; return the median seconds per epoch."""
    experiments, study = folder / "first.yaml", folder / "first"
    write_experiments(experiments, TRIAL_EPOCHS)
    with training(study, experiments):
        pass
    return statistics.median(map(_seconds, epochs_of(study)))


def _report(watched: Path, unwatched: Path, polls: Sequence[Polls]) -> int:
    """Print the differences between the two studies, the problems and the times; return the exit code."""
    snapshots = [take_snapshot(study) for study in (watched, unwatched)]
    changed = differences(*snapshots)
    problems = [problem for one in polls for problem in one.problems]
    print(*changed, *problems, sep="\n")
    counts = polls[0].counts + polls[1].counts
    print(", ".join(f"{count} x {name}" for name, count in sorted(counts.items())))
    print(f"failed polls: {len(problems)}")
    print(f"items that differ between the two studies: {len(changed)} of {len(snapshots[0])}")
    print("seconds per epoch, ratio of the polled study to the study without polling:")
    for name, seconds in (("wall time", _seconds), ("CPU time", _processor_seconds)):
        one, other = ([seconds(epoch) for epoch in epochs_of(study)] for study in (watched, unwatched))
        ratios = (statistics.fmean(one) / statistics.fmean(other), statistics.median(one) / statistics.median(other))
        print(f"  {name}: mean {ratios[0]:.3f}, median {ratios[1]:.3f}")
    return DIFFERENT if problems or changed else EQUAL


def _seconds(epoch: Mapping[str, float]) -> float:
    return epoch["epoch_seconds"]


def _processor_seconds(epoch: Mapping[str, float]) -> float:
    """Return the CPU seconds of an epoch, which hardly depend on other processes."""
    return epoch["epoch_seconds"] * epoch["cpu_percent"] / 100


if __name__ == "__main__":
    sys.exit(main())
