"""Polling a study in a loop through its dashboard and through commands, until its training has ended."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.dashboard import Dashboard, DashboardError, request_everything, try_to_change
from harness.fixture_study import OUTPUT
from harness.polls import Polls
from harness.processes import give, problem_of
from harness.run import HarnessError

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
