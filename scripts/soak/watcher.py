"""Continuous polling of a study in a new process, because the harness itself forks and must have no threads."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.fixture_study import OUTPUT
from harness.polling import Dashboard, DashboardError, Polls
from harness.processes import environment, problem_of, python, run_tuner
from harness.run import HarnessError

from soak.consistency import Details, Exports, status_problems

EXPORTED = "exported.json"
_PAUSE_S = 1.0
_STATUS_PROBABILITY = 0.2
_KILL_PROBABILITY = 0.04


class Watcher:
    """A process that polls the study in a folder until `end` is called or the harness exits."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Start to poll; the seed determines when the status is read and when the dashboard is killed."""
        self._process = subprocess.Popen(
            python(["-m", "soak.watcher", str(folder), str(seed)]),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def end(self) -> Polls:
        """Stop polling; return the results of all polls.

        Raises:
            HarnessError: The polling process failed.
        """
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise HarnessError(
                f"the process that polls the study exited with code {self._process.returncode}; expected 0"
            )
        found = json.loads(output)
        return Polls(Counter(found["counts"]), found["problems"])


def _watch(folder: Path, seed: int) -> None:
    """Poll until standard input is closed; then print the results as JSON."""
    polls, stop = Polls(), threading.Event()
    with ThreadPoolExecutor() as pool:
        running = [
            pool.submit(loop, folder, random.Random(seed + number), polls, stop)
            for number, loop in enumerate((_export_in_a_loop, _poll_dashboards))
        ]
        sys.stdin.read()
        stop.set()
    for loop in running:
        if error := loop.exception():
            polls.record("polling", f"stopped early: {error!r}")
    print(json.dumps(vars(polls)))


def _export_in_a_loop(folder: Path, rng: random.Random, polls: Polls, stop: threading.Event) -> None:
    exports, exists = Exports(), False
    while not stop.wait(_PAUSE_S):
        done = run_tuner(folder, "export", "--results-file", EXPORTED, "--output-dir", OUTPUT)
        if not exists and done.returncode == 2 and "Traceback" not in done.stderr:
            continue  # the study does not exist yet
        exists = True
        problem = problem_of(done)
        found = [problem] if problem else exports.problems((folder / EXPORTED).read_text(encoding="utf-8"))
        polls.record("export", *found)
        if rng.random() < _STATUS_PROBABILITY:
            done = run_tuner(folder, "status", "--json", "--output-dir", OUTPUT)
            problem = problem_of(done)
            polls.record("status", *([problem] if problem else status_problems(done.stdout)))


def _poll_dashboards(folder: Path, rng: random.Random, polls: Polls, stop: threading.Event) -> None:
    """Poll a dashboard; start a new one when it has been killed."""
    details, exists = Details(), False
    while not stop.wait(_PAUSE_S):
        try:
            dashboard = Dashboard(folder)
        except DashboardError as error:
            if exists or "Traceback" in str(error):
                polls.record("dashboard", f"did not start: {error}")
            continue
        exists = True
        _poll(dashboard, details, rng, polls, stop)


def _poll(dashboard: Dashboard, details: Details, rng: random.Random, polls: Polls, stop: threading.Event) -> None:
    while not stop.wait(_PAUSE_S):
        polls.record("study page", *details.problems(dashboard.poll(polls)))
        if rng.random() < _KILL_PROBABILITY:
            dashboard.kill()
            polls.record("dashboard killed")
            return
    if errors := dashboard.end():
        polls.record("dashboard", errors)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]), int(sys.argv[2]))
