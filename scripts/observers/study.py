"""Studies that `watch_harness.py` runs, and polling of a study through its dashboard and through commands."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from harness.fixture_study import OUTPUT, RESULTS
from harness.polling import Dashboard, Polls
from harness.processes import command, failure, problem_of, run_tuner, started

EXPERIMENTS = 4
WORKERS = 2
# The commands write their files outside the study's folder.
_COMMANDS = (
    ("status", "--json"),
    ("status",),
    ("export", "--results-file", "../exported.json"),
    ("export", "--format", "csv", "--results-file", "../trials.csv"),
    ("report", "--out", "../report.html"),
)
_PAUSE_S = 3.0


def write_experiments(path: Path, epochs: int) -> None:
    """Write experiments with different learning rates that train exactly `epochs` epochs."""
    shared = {
        "model": {"name": "small"},
        "data": {"metadata_path": "../data/metadata.yaml"},
        "early_stopping": {"patience": 100_000},
    }
    experiments = {
        f"rate_{number}": shared
        | {"training": {"num_epochs": epochs, "device": "cpu", "learning_rate": 0.001 * number}}
        for number in range(1, EXPERIMENTS + 1)
    }
    path.write_text(yaml.safe_dump({"experiments": experiments}), encoding="utf-8")


@contextlib.contextmanager
def training(study: Path, experiments: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Train experiments in a study's folder during the block; at its end, wait until the command exits.

    Raises:
        HarnessError: The command failed.
    """
    outputs = ["--output-dir", OUTPUT, "--results-file", RESULTS]
    arguments = command("run", "--config", str(experiments), *outputs, "--workers", str(WORKERS))
    with started(arguments, study) as process:
        yield process
        if code := process.wait():
            raise failure(arguments, study, code)


def epochs_of(study: Path) -> list[dict[str, float]]:
    """Return the metrics of a study's epochs, without the first epoch of each experiment, which is slower."""
    files = sorted((study / OUTPUT).glob("*/metrics.jsonl"))
    lines = (itertools.islice(file.read_text(encoding="utf-8").splitlines(), 1, None) for file in files)
    return [json.loads(line) for line in itertools.chain.from_iterable(lines)]


def poll_during(training: subprocess.Popen[bytes], study: Path) -> Polls:
    """Poll the study in a folder in a loop until a process that trains this or another study exits.

    Raises:
        HarnessError: The dashboard did not start.
    """
    while not (study / OUTPUT / "study.db").exists() and training.poll() is None:
        time.sleep(0.1)
    polls, stop, dashboard = Polls(), threading.Event(), Dashboard(study)
    try:
        with ThreadPoolExecutor(1 + len(_COMMANDS)) as pool:
            loops = [pool.submit(_repeat, stop, dashboard.poll, polls)]
            loops += [pool.submit(_repeat, stop, _poll_by_command, study, polls, arguments) for arguments in _COMMANDS]
            try:
                training.wait()
            finally:
                stop.set()
    finally:
        errors = dashboard.end()
    for loop in loops:
        loop.result()  # raises the exception of the loop
    polls.record("dashboard stopped", errors)
    return polls


def _repeat(stop: threading.Event, poll: Callable[..., object], *arguments: object) -> None:
    while not stop.wait(_PAUSE_S):
        poll(*arguments)


def _poll_by_command(study: Path, polls: Polls, arguments: Sequence[str]) -> None:
    polls.record(arguments[0], problem_of(run_tuner(study, *arguments, "--output-dir", OUTPUT)))
