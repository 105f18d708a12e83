"""A study that is polled in a loop, through its dashboard and through commands, while it or another one trains."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from harness.fixture_study import OUTPUT, RESULTS
from harness.polling import Dashboard, DashboardError, Polls, request_everything, try_to_change
from harness.processes import command, failure, give, problem_of, started
from harness.run import HarnessError

EXPERIMENTS = 4
WORKERS = 2
# Files that the polling commands write beside the study.
WRITTEN = frozenset({"exported.json", "trials.csv", "report.html"})
_COMMANDS = (
    ("status", "--json"),
    ("status",),
    ("export", "--results-file", "exported.json"),
    ("export", "--format", "csv", "--results-file", "trials.csv"),
    ("report", "--out", "report.html"),
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
    polls, over = Polls(), threading.Event()
    with _dashboard(study, polls) as address:
        loops = [lambda: _poll_dashboard(address, polls), *(_polling(study, polls, *words) for words in _COMMANDS)]
        threads = [threading.Thread(target=_repeat, args=(loop, over)) for loop in loops]
        for thread in threads:
            thread.start()
        try:
            training.wait()
        finally:
            over.set()
            for thread in threads:
                thread.join()
    return polls


def _repeat(poll: Callable[[], None], over: threading.Event) -> None:
    while not over.wait(_PAUSE_S):
        poll()


def _polling(study: Path, polls: Polls, *words: str) -> Callable[[], None]:
    return lambda: polls.record(words[0], problem_of(give(study, *words, "--output-dir", OUTPUT)))


@contextlib.contextmanager
def _dashboard(study: Path, polls: Polls) -> Iterator[str]:
    """Serve a study's dashboard; yield host and port."""
    try:
        dashboard = Dashboard(study)
    except DashboardError as error:
        raise HarnessError(f"the dashboard does not start: {error}") from error
    try:
        yield dashboard.address
    finally:
        if complaint := dashboard.end():
            polls.record("dashboard", complaint)


def _poll_dashboard(address: str, polls: Polls) -> None:
    request_everything(address, polls)
    try_to_change(address, polls)
