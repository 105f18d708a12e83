"""A command that trains a study in a new interpreter, and the worker processes that it starts."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil
from harness.processes import LONGEST_LIFE_S, command, start_logged

_WORKER = "tuner.cli.worker_main"
_POLL_S = 0.05
# An orphan stops within ten seconds on an idle machine.
_LONGEST_STOP_S = 60.0


class Training:
    """A command that trains a study.

    Attributes:
        code: Its exit code; negative if a signal ended it, None while it runs.
        hung: Whether it was killed because it did not exit.
    """

    def __init__(self, folder: Path, words: Sequence[str], number: int) -> None:
        """Start the command of this number, ``khmer-tuner WORDS``, in the study's folder; it logs to a file there."""
        self.code: int | None = None
        self.hung = False
        self._log = folder / f"process_{number:02d}.txt"
        self._process = start_logged(command(*words), self._log)
        self._started_s = time.monotonic()

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, should_stop: Callable[[float], bool] = lambda seconds: False) -> None:
        """Wait until it has exited or `should_stop` returns True; kill it if it hangs.

        Args:
            should_stop: Called again and again, with the seconds since the wait began.
        """
        begun_s = time.monotonic()
        while self.code is None and not should_stop(time.monotonic() - begun_s):
            time.sleep(_POLL_S)
            self.hung = self.hung or time.monotonic() - self._started_s > LONGEST_LIFE_S
            if self.hung:
                self._process.kill()
            self.code = self._process.poll()

    def send_signal(self, signum: int) -> None:
        """Send it a signal."""
        self._process.send_signal(signum)

    def workers(self) -> list[psutil.Process]:
        """Return its workers."""
        try:
            return _workers_among(psutil.Process(self._process.pid).children())
        except psutil.Error:  # it has just exited
            return []

    def kill_all(self) -> None:
        """Kill it and its workers at once; none of them can notice that another one is gone."""
        family = [psutil.Process(self._process.pid), *self.workers()]
        for action in (psutil.Process.suspend, psutil.Process.kill):
            for process in family:
                with contextlib.suppress(psutil.Error):
                    action(process)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes with a folder as their working directory."""
    place = os.path.realpath(folder)
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has exited, or is another user's
            if process.cwd() == place:
                found.append(process)
    return found


def orphans_in(folder: Path) -> list[psutil.Process]:
    """Return the workers in a folder, for when the command that started them has exited."""
    return _workers_among(processes_in(folder))


def wait_for_orphans(folder: Path) -> list[psutil.Process]:
    """Wait until the workers in a folder have exited; return those that do not."""
    begun_s = time.monotonic()
    while (left := orphans_in(folder)) and time.monotonic() - begun_s < _LONGEST_STOP_S:
        time.sleep(_POLL_S)
    return left


def kill_processes_in(folder: Path) -> None:
    """Kill all processes with a folder as their working directory."""
    for process in processes_in(folder):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _workers_among(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if _WORKER in process.cmdline():
                found.append(process)
    return found
