"""A training command in a new interpreter, and its worker processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil
from harness.processes import PROCESS_TIMEOUT_S, command, start_logged

_WORKER = "tuner.cli.worker_main"
_POLL_S = 0.05
# On an idle machine, an orphaned worker exits within ten seconds.
_STOP_TIMEOUT_S = 60.0


class Training:
    """A command that runs a study.

    Attributes:
        code: Exit code: -N if signal N killed the command; None while the command is running.
        hung: Whether the command was killed because it did not exit in time.
    """

    def __init__(self, folder: Path, arguments: Sequence[str], number: int) -> None:
        """Start ``khmer-tuner ARGUMENTS`` in the study's folder; `number` becomes part of the log file's name."""
        self.code: int | None = None
        self.hung = False
        self._log = folder / f"process_{number:02d}.txt"
        self._process = start_logged(command(*arguments), self._log)
        self._started_s = time.monotonic()

    @property
    def output(self) -> str:
        """The command's output so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, should_stop: Callable[[float], bool] = lambda seconds: False) -> None:
        """Wait until the command has exited or `should_stop` returns True; kill the command if it hangs.

        Args:
            should_stop: Polled with the seconds since the start of the wait.
        """
        started_s = time.monotonic()
        while self.code is None and not should_stop(time.monotonic() - started_s):
            time.sleep(_POLL_S)
            self.hung = self.hung or time.monotonic() - self._started_s > PROCESS_TIMEOUT_S
            if self.hung:
                self._process.kill()
            self.code = self._process.poll()

    def send_signal(self, signum: int) -> None:
        """Send a signal to the command, but not to its workers."""
        self._process.send_signal(signum)

    def workers(self) -> list[psutil.Process]:
        """Return the running worker processes of the command."""
        try:
            return _workers_among(psutil.Process(self._process.pid).children())
        except psutil.Error:  # the command has just exited
            return []

    def kill_all(self) -> None:
        """Kill the command and its workers at the same moment, so that none can react to the exit of another."""
        family = [psutil.Process(self._process.pid), *self.workers()]
        for action in (psutil.Process.suspend, psutil.Process.kill):
            for process in family:
                with contextlib.suppress(psutil.Error):
                    action(process)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes whose working directory is this folder."""
    path = os.path.realpath(folder)
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # the process has exited or belongs to another user
            if process.cwd() == path:
                found.append(process)
    return found


def orphans_in(folder: Path) -> list[psutil.Process]:
    """Return the worker processes in a folder; call this after their command has exited."""
    return _workers_among(processes_in(folder))


def wait_for_orphans(folder: Path) -> list[psutil.Process]:
    """Wait until the orphaned workers in a folder have exited; return the workers that do not exit in time."""
    started_s = time.monotonic()
    while (orphans := orphans_in(folder)) and time.monotonic() - started_s < _STOP_TIMEOUT_S:
        time.sleep(_POLL_S)
    return orphans


def kill_processes_in(folder: Path) -> None:
    """Kill all processes whose working directory is this folder."""
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
