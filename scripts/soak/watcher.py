"""Polling a study all the time, from a process of its own, so that the one that disturbs the study may fork."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from harness.fixture_study import OUTPUT
from harness.polling import Dashboard, DashboardError, Polls, request_everything, try_to_change
from harness.processes import give, problem_of
from harness.run import HarnessError

from soak.consistency import Details, Exports, status_problems

EXPORTED = "exported.json"
_PAUSE_S = 1.0
_STATUS_SHARE = 0.2
_KILL_SHARE = 0.04
_FORK = multiprocessing.get_context("fork")


class Watcher:
    """Polls the study of a folder from now on, until `end` is called."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Start to poll.

        Args:
            folder: The study's folder.
            seed: Of randomness: when a status is read, and when the dashboard is killed.
        """
        self._connection, theirs = _FORK.Pipe()
        self._process = _FORK.Process(target=_watch, args=(folder, seed, theirs, self._connection))
        self._process.start()
        theirs.close()

    def end(self) -> Polls:
        """Stop polling; return what it came to.

        Raises:
            HarnessError: The process that polls has died.
        """
        try:
            self._connection.send(None)
            polls: Polls = self._connection.recv()
        except (OSError, EOFError) as error:
            raise HarnessError("the process that polls a study died") from error
        finally:
            self._process.join()
            self._connection.close()
        return polls


def _watch(folder: Path, seed: int, connection: Connection, theirs: Connection) -> None:
    os.setpgrp()  # Ctrl-C interrupts only the parent, which then ends this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    theirs.close()
    polls, over = Polls(), threading.Event()
    loops = [
        threading.Thread(target=_recorded, args=(loop, folder, random.Random(seed + number), polls, over))
        for number, loop in enumerate((_export_in_a_loop, _poll_dashboards))
    ]
    for loop in loops:
        loop.start()
    try:
        connection.recv()
    except EOFError:  # the parent has died
        return
    finally:
        over.set()
        for loop in loops:
            loop.join()
    connection.send(polls)


Loop = Callable[[Path, random.Random, Polls, threading.Event], None]


def _recorded(loop: Loop, folder: Path, rng: random.Random, polls: Polls, over: threading.Event) -> None:
    """Run a loop; that it cannot continue is a problem like others."""
    try:
        loop(folder, rng, polls, over)
    except Exception as error:
        polls.record("polling", f"ended early: {error!r}")


def _export_in_a_loop(folder: Path, rng: random.Random, polls: Polls, over: threading.Event) -> None:
    exports, exists = Exports(), False
    while not over.wait(_PAUSE_S):
        done = give(folder, "export", "--results-file", EXPORTED, "--output-dir", OUTPUT)
        if not exists and done.returncode == 2 and "Traceback" not in done.stderr:
            continue  # there is nothing to export yet, and it says so
        exists = True
        problem = problem_of(done)
        found = [problem] if problem else exports.problems((folder / EXPORTED).read_text(encoding="utf-8"))
        polls.record("export", *found)
        if rng.random() < _STATUS_SHARE:
            done = give(folder, "status", "--json", "--output-dir", OUTPUT)
            problem = problem_of(done)
            polls.record("status", *([problem] if problem else status_problems(done.stdout)))


def _poll_dashboards(folder: Path, rng: random.Random, polls: Polls, over: threading.Event) -> None:
    """Poll one dashboard after the other: some of them are killed."""
    details, exists = Details(), False
    while not over.wait(_PAUSE_S):
        try:
            dashboard = Dashboard(folder)
        except DashboardError as error:
            if exists or "Traceback" in str(error):
                polls.record("dashboard", f"does not start: {error}")
            continue
        exists = True
        _poll(dashboard, details, rng, polls, over)


def _poll(dashboard: Dashboard, details: Details, rng: random.Random, polls: Polls, over: threading.Event) -> None:
    while not over.wait(_PAUSE_S):
        polls.record("study page", *details.problems(request_everything(dashboard.address, polls)))
        try_to_change(dashboard.address, polls)
        if rng.random() < _KILL_SHARE:
            dashboard.kill()
            polls.record("dashboard killed")
            return
    if complaint := dashboard.end():
        polls.record("dashboard", complaint)
