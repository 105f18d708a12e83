#!/usr/bin/env python3
"""Look at a study without end while it trains, and show that nobody can tell it from one that was left alone.

Two workers train the same experiments twice. The first time dashboard, status, export and report run in a loop on the
study itself; the second time on the first one, which is finished, so that they take as much of the processor. No look
may fail, no epoch may become slower beyond noise, and the two studies must be equal bit for bit. All the while it is
tried to change the study through the dashboard.

Example: python scripts/watch_harness.py --minutes 5
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml
from harness.fixture_study import OUTPUT, RESULTS
from harness.snapshot import differences, take_snapshot
from observers.commands import give, problem_of, words
from observers.dashboard import Dashboard, DashboardError, ask_for_everything, try_to_change
from observers.looks import Looks

SAMPLES = 400
EXPERIMENTS = 4
WORKERS = 2
PAUSE_S = 3.0
TRIAL_EPOCHS = 6


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return 0 if nothing differs, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes",
        type=float,
        default=5.0,
        help="how long each of the two studies would train if nobody looked at anything, about; it takes twice as long",
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: a new temporary folder)")
    options = parser.parse_args(argv)
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="watch_harness_"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"in {folder}", flush=True)
    seconds = _seconds_per_epoch(folder)
    epochs = max(2, round(options.minutes * 60 * WORKERS / EXPERIMENTS / seconds))
    print(f"{EXPERIMENTS} experiments of {epochs} epochs, {seconds:.2f} s each, {WORKERS} workers", flush=True)
    _write_experiments(folder, "experiments.yaml", epochs)
    watched = _train_and_look(folder / "watched", at=folder / "watched")
    beside = _train_and_look(folder / "beside", at=folder / "watched")
    return _tell(folder, watched, beside)


def _seconds_per_epoch(folder: Path) -> float:
    """Draw the dataset and train a short study; return how long an epoch takes when two workers train."""
    give(folder, "data", "--samples", str(SAMPLES), "--test-samples", "10", "--out", "data")
    _write_experiments(folder, "first.yaml", TRIAL_EPOCHS)
    (folder / "first").mkdir()
    _wait_for(_begin_training(folder / "first", "first.yaml"), folder / "first")
    return statistics.median(_epoch_seconds(folder / "first"))


def _write_experiments(folder: Path, name: str, epochs: int) -> None:
    shared = {
        "model": {"name": "small"},
        "data": {"metadata_path": "../data/metadata.yaml"},
        "early_stopping": {"patience": 100_000},
        "training": {"num_epochs": epochs, "device": "cpu"},
    }
    experiments = {f"rate_{number}": _with_rate(shared, 0.001 * number) for number in range(1, EXPERIMENTS + 1)}
    (folder / name).write_text(yaml.safe_dump({"experiments": experiments}), encoding="utf-8")


def _with_rate(shared: dict[str, dict[str, object]], rate: float) -> dict[str, dict[str, object]]:
    return shared | {"training": shared["training"] | {"learning_rate": rate}}


def _train_and_look(study: Path, at: Path) -> Looks:
    """Train a study in a folder; meanwhile look at the one in another folder, which may be the same, in a loop."""
    study.mkdir()
    training = _begin_training(study, "experiments.yaml")
    while not (at / OUTPUT / "study.db").exists():
        time.sleep(0.1)
    looks, over = Looks(), threading.Event()
    with _dashboard(at, looks) as address:
        loops = [lambda: _ask_dashboard(address, looks)]
        loops += [_looking(at, looks, *words) for words in _COMMANDS]
        threads = [threading.Thread(target=_repeat, args=(loop, over)) for loop in loops]
        for thread in threads:
            thread.start()
        try:
            _wait_for(training, study)
        finally:
            over.set()
            for thread in threads:
                thread.join()
    return looks


_COMMANDS = (
    ("status", "--json"),
    ("status",),
    ("export", "--results-file", "exported.json"),
    ("export", "--format", "csv", "--results-file", "trials.csv"),
    ("report", "--out", "report.html"),
)


def _repeat(look: Callable[[], None], over: threading.Event) -> None:
    while not over.wait(PAUSE_S):
        look()


def _looking(at: Path, looks: Looks, *command: str) -> Callable[[], None]:
    return lambda: looks.note(command[0], problem_of(give(at, *command, "--output-dir", OUTPUT)))


@contextlib.contextmanager
def _dashboard(at: Path, looks: Looks) -> Iterator[str]:
    """Serve a study's dashboard; yield host and port."""
    try:
        dashboard = Dashboard(at)
    except DashboardError as error:
        raise SystemExit(f"the dashboard does not begin: {error}") from error
    try:
        yield dashboard.address
    finally:
        if complaint := dashboard.end():
            looks.note("dashboard", complaint)


def _ask_dashboard(address: str, looks: Looks) -> None:
    ask_for_everything(address, looks)
    try_to_change(address, looks)


def _begin_training(study: Path, experiments: str) -> subprocess.Popen[bytes]:
    places = ["--output-dir", OUTPUT, "--results-file", RESULTS]
    command = words("run", "--config", f"../{experiments}", *places, "--workers", str(WORKERS))
    with (study / "output.txt").open("wb") as output:
        return subprocess.Popen(command, cwd=study, stdout=output, stderr=subprocess.STDOUT)


def _wait_for(training: subprocess.Popen[bytes], study: Path) -> None:
    if training.wait():
        raise SystemExit(f"the training failed:\n{(study / 'output.txt').read_text(encoding='utf-8')}")


def _epochs(study: Path) -> list[dict[str, float]]:
    """Return the figures of a study's epochs, the first one of each experiment left out."""
    files = sorted((study / OUTPUT).glob("*/metrics.jsonl"))
    lines = (itertools.islice(file.read_text(encoding="utf-8").splitlines(), 1, None) for file in files)
    return [json.loads(line) for line in itertools.chain.from_iterable(lines)]


def _epoch_seconds(study: Path) -> list[float]:
    return [epoch["epoch_seconds"] for epoch in _epochs(study)]


def _processor_seconds(study: Path) -> list[float]:
    """Return what each epoch took of the processor, which does not depend on what else takes some."""
    return [epoch["epoch_seconds"] * epoch["cpu_percent"] / 100 for epoch in _epochs(study)]


def _tell(folder: Path, watched: Looks, beside: Looks) -> int:
    studies = (folder / "watched", folder / "beside")
    snapshots = [_without_left_over(take_snapshot(study)) for study in studies]
    changed = differences(*snapshots)
    problems = watched.problems + beside.problems
    for told in (*changed, *problems):
        print(told)
    print(", ".join(f"{count} x {name}" for name, count in sorted(watched.counts.items())))
    print(f"looks that failed: {len(problems)}")
    print(f"items of the study that differ: {len(changed)} of {len(snapshots[0])}")
    print("an epoch, watched / not watched:")
    for name, seconds in (("time", _epoch_seconds), ("processor time", _processor_seconds)):
        one, other = (seconds(study) for study in studies)
        ratios = (statistics.fmean(one) / statistics.fmean(other), statistics.median(one) / statistics.median(other))
        print(f"  {name}: mean {ratios[0]:.3f}, median {ratios[1]:.3f}")
    return 1 if problems or changed else 0


def _without_left_over(snapshot: dict[str, str]) -> dict[str, str]:
    """Leave out what the looking commands themselves wrote beside the study."""
    written = {"exported.json", "trials.csv", "report.html"}
    files = [name for name in json.loads(snapshot["files"]) if name not in written]
    return snapshot | {"files": json.dumps(files, ensure_ascii=False)}


if __name__ == "__main__":
    os.environ.pop("KHMER_TUNER_STORAGE", None)
    sys.exit(main())
