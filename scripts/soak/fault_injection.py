"""Faults that the harness injects into a command that runs a study, and the condition for each fault."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import psutil
from harness.fixture_study import OUTPUT
from harness.processes import problem_of, run_tuner
from harness.survey import Survey, survey

from soak.training import Training

# A command stops replacing its workers if they are killed repeatedly before they have claimed a trial.
_MAX_WORKER_KILLS = 3
# With fewer pending trials, or after a stop, a command may exit soon and may have removed its signal handlers.
_MIN_PENDING_TRIALS = 3
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.5, 5.0


class Fault(StrEnum):
    """A kind of fault."""

    KILL_WORKER = "worker killed"
    KILL_COMMAND = "command killed"
    KILL_ALL = "all killed at once"
    INTERRUPT = "SIGINT"
    TERMINATE = "SIGTERM"
    PAUSE_WORKER = "worker paused"
    PAUSE_COMMAND = "command paused"
    STOP = "stop requested"


# The exit codes after faults that end the command. After other faults, it continues or ends normally.
_CODES = {
    Fault.KILL_COMMAND: -signal.SIGKILL,
    Fault.KILL_ALL: -signal.SIGKILL,
    Fault.INTERRUPT: 128 + signal.SIGINT,
    Fault.TERMINATE: 128 + signal.SIGTERM,
}
_SIGNALS = {
    Fault.KILL_WORKER: signal.SIGKILL,
    Fault.KILL_COMMAND: signal.SIGKILL,
    Fault.INTERRUPT: signal.SIGINT,
    Fault.TERMINATE: signal.SIGTERM,
    Fault.PAUSE_WORKER: signal.SIGSTOP,
    Fault.PAUSE_COMMAND: signal.SIGSTOP,
}


class FaultInjector:
    """An injector of random faults into one command.

    Attributes:
        faults: The faults injected so far, in order of time.
        problems: A text for each fault that could not be injected.
    """

    def __init__(self, folder: Path, training: Training, trials: int, rng: random.Random) -> None:
        """Prepare to inject faults into a command; the complete study in the folder has `trials` trials."""
        self.faults: list[Fault] = []
        self.problems: list[str] = []
        self._folder = folder
        self._training = training
        self._trials = trials
        self._rng = rng

    @property
    def code(self) -> int | None:
        """The exit code of a command that the last fault ends; None if that fault does not end the command."""
        return _CODES.get(self.faults[-1]) if self.faults else None

    def inject(self) -> None:
        """Inject a random fault that is possible now; do nothing if none is possible."""
        possible = list(self._possible(survey(self._folder)))
        if possible:
            fault = self._rng.choice(possible)
            self.faults.append(fault)
            self._do(fault)

    def _possible(self, state: Survey) -> Iterator[Fault]:
        from studies import MAX_CRASHES

        has_workers = bool(self._training.workers())
        # The program ends a trial as crashed after too many consecutive crashes.
        may_kill = state.crashes < MAX_CRASHES - 1
        is_far_from_end = state.finished <= self._trials - _MIN_PENDING_TRIALS and Fault.STOP not in self.faults
        has_handlers = bool(self._training.output) and is_far_from_end
        conditions = {
            Fault.KILL_WORKER: may_kill and has_workers and self.faults.count(Fault.KILL_WORKER) < _MAX_WORKER_KILLS,
            Fault.KILL_COMMAND: may_kill,
            Fault.KILL_ALL: may_kill,
            Fault.INTERRUPT: has_handlers,
            Fault.TERMINATE: has_handlers,
            Fault.PAUSE_WORKER: has_workers,
            Fault.PAUSE_COMMAND: True,
            Fault.STOP: state.trials > 0,
        }
        return (fault for fault, is_possible in conditions.items() if is_possible)

    def _do(self, fault: Fault) -> None:
        training, workers = self._training, self._training.workers()
        worker = self._rng.choice(workers) if workers else None
        if fault is Fault.STOP:
            if problem := problem_of(run_tuner(self._folder, "stop", "--output-dir", OUTPUT)):
                self.problems.append(f"stop: {problem}")
        elif fault is Fault.KILL_ALL:
            training.kill_all()
        elif target := worker if fault in (Fault.KILL_WORKER, Fault.PAUSE_WORKER) else training:
            with contextlib.suppress(psutil.Error):  # the worker has just exited
                target.send_signal(_SIGNALS[fault])
                if _SIGNALS[fault] == signal.SIGSTOP:
                    time.sleep(self._rng.uniform(_MIN_PAUSE_S, _MAX_PAUSE_S))
                    target.send_signal(signal.SIGCONT)
