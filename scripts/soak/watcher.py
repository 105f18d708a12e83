"""Looking at a study all the time, from a process of its own, so that the one that disturbs it may fork."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path

from harness.fixture_study import OUTPUT
from harness.processes import HarnessError
from observers.commands import give, problem_of
from observers.dashboard import Dashboard, DashboardError, ask_for_everything, try_to_change
from observers.looks import Looks

from soak.consistency import Details, Exports, status_problems

EXPORTED = "exported.json"
_PAUSE_S = 1.0
_STATUS_SHARE = 0.2
_KILL_SHARE = 0.04
_FORK = multiprocessing.get_context("fork")


class Watcher:
    """Looks at the study of a folder from now on until it is told to end."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Begin to look.

        Args:
            folder: The study's folder.
            seed: Of chance: when a status is asked for, and when the dashboard is killed.
        """
        self._connection, theirs = _FORK.Pipe()
        self._process = _FORK.Process(target=_watch, args=(folder, seed, theirs, self._connection))
        self._process.start()
        theirs.close()

    def end(self) -> Looks:
        """Stop looking; return what came of it.

        Raises:
            HarnessError: The process that looked has died.
        """
        try:
            self._connection.send(None)
            looks: Looks = self._connection.recv()
        except (OSError, EOFError) as error:
            raise HarnessError("the process that looks at a study died") from error
        finally:
            self._process.join()
            self._connection.close()
        return looks


def _watch(folder: Path, seed: int, connection: Connection, theirs: Connection) -> None:
    os.setpgrp()  # Ctrl-C is for the one that disturbs, which tells this one to end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    theirs.close()
    looks, over = Looks(), threading.Event()
    loops = [
        threading.Thread(target=_noted, args=(loop, folder, random.Random(seed + number), looks, over))
        for number, loop in enumerate((_export_in_a_loop, _poll_dashboards))
    ]
    for loop in loops:
        loop.start()
    try:
        connection.recv()
    except EOFError:  # the one that disturbs has died
        return
    finally:
        over.set()
        for loop in loops:
            loop.join()
    connection.send(looks)


Loop = Callable[[Path, random.Random, Looks, threading.Event], None]


def _noted(loop: Loop, folder: Path, rng: random.Random, looks: Looks, over: threading.Event) -> None:
    """Look in a loop; that it cannot go on is a problem like others."""
    try:
        loop(folder, rng, looks, over)
    except Exception as error:
        looks.note("looking", f"ended early: {error!r}")


def _export_in_a_loop(folder: Path, rng: random.Random, looks: Looks, over: threading.Event) -> None:
    exports, has_begun = Exports(), False
    while not over.wait(_PAUSE_S):
        done = give(folder, "export", "--results-file", EXPORTED, "--output-dir", OUTPUT)
        if not has_begun and done.returncode == 2 and "Traceback" not in done.stderr:
            continue  # there is nothing to export yet, and it says so
        has_begun = True
        problem = problem_of(done)
        found = [problem] if problem else exports.problems((folder / EXPORTED).read_text(encoding="utf-8"))
        _note(looks, "export", found)
        if rng.random() < _STATUS_SHARE:
            done = give(folder, "status", "--json", "--output-dir", OUTPUT)
            problem = problem_of(done)
            _note(looks, "status", [problem] if problem else status_problems(done.stdout))


def _note(looks: Looks, name: str, problems: Iterable[str]) -> None:
    looks.note(name, "; ".join(problems))


def _poll_dashboards(folder: Path, rng: random.Random, looks: Looks, over: threading.Event) -> None:
    """Poll a dashboard, and begin another one when it is killed; all of them show one and the same study."""
    details, has_begun = Details(), False
    while not over.wait(_PAUSE_S):
        try:
            dashboard = Dashboard(folder)
        except DashboardError as error:
            if has_begun or "Traceback" in str(error):
                looks.note("dashboard", f"does not begin: {error}")
            continue
        has_begun = True
        _poll(dashboard, details, rng, looks, over)


def _poll(dashboard: Dashboard, details: Details, rng: random.Random, looks: Looks, over: threading.Event) -> None:
    while not over.wait(_PAUSE_S):
        _note(looks, "study page", details.problems(ask_for_everything(dashboard.address, looks)))
        try_to_change(dashboard.address, looks)
        if rng.random() < _KILL_SHARE:
            dashboard.kill()
            looks.note("dashboard killed")
            return
    if complaint := dashboard.end():
        looks.note("dashboard", complaint)
