"""A study that is polled in a loop, through its dashboard and through commands, while it or another one trains."""

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
from harness.processes import command, failure, give, problem_of, started

EXPERIMENTS = 4
WORKERS = 2
# Their files are written outside the study.
_COMMANDS = (
    ("status", "--json"),
    ("status",),
    ("export", "--results-file", "../exported.json"),
    ("export", "--format", "csv", "--results-file", "../trials.csv"),
    ("report", "--out", "../report.html"),
)
_PAUSE_S = 3.0


def write_experiments(path: Path, epochs: int) -> None:
    """Write experiments of several learning rates that train exactly this many epochs."""
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
    """Train experiments in a study's folder; leaving the block waits for the end.

    Raises:
        HarnessError: The training failed.
    """
    places = ["--output-dir", OUTPUT, "--results-file", RESULTS]
    words = command("run", "--config", str(experiments), *places, "--workers", str(WORKERS))
    with started(words, study) as process:
        yield process
        if code := process.wait():
            raise failure(words, study, code)


def epochs_of(study: Path) -> list[dict[str, float]]:
    """Return the metrics of a study's epochs, without the first one of each experiment."""
    files = sorted((study / OUTPUT).glob("*/metrics.jsonl"))
    lines = (itertools.islice(file.read_text(encoding="utf-8").splitlines(), 1, None) for file in files)
    return [json.loads(line) for line in itertools.chain.from_iterable(lines)]


def poll_during(training: subprocess.Popen[bytes], study: Path) -> Polls:
    """Poll the study in a folder in a loop while a process trains, that study or another one.

    Raises:
        HarnessError: The dashboard does not start.
    """
    while not (study / OUTPUT / "study.db").exists() and training.poll() is None:
        time.sleep(0.1)
    polls, over, dashboard = Polls(), threading.Event(), Dashboard(study)
    try:
        with ThreadPoolExecutor(1 + len(_COMMANDS)) as pool:
            loops = [pool.submit(_repeat, over, dashboard.poll, polls)]
            loops += [pool.submit(_repeat, over, _poll_by_command, study, polls, words) for words in _COMMANDS]
            try:
                training.wait()
            finally:
                over.set()
    finally:
        complaint = dashboard.end()
    for loop in loops:
        loop.result()  # raises what the loop raised
    polls.record("dashboard stopped", complaint)
    return polls


def _repeat(over: threading.Event, poll: Callable[..., object], *arguments: object) -> None:
    while not over.wait(_PAUSE_S):
        poll(*arguments)


def _poll_by_command(study: Path, polls: Polls, words: Sequence[str]) -> None:
    polls.record(words[0], problem_of(give(study, *words, "--output-dir", OUTPUT)))
