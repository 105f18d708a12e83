"""Ways to disturb a command that trains a study, and the condition for each."""

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

# A command does not replace workers that are killed repeatedly before they have claimed a trial.
_MAX_WORKER_KILLS = 3
# With fewer pending trials, or after a stop, a command may exit soon and may have removed its signal handlers.
_MIN_PENDING_TRIALS = 3
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.5, 5.0


class Kind(StrEnum):
    """A way to disturb a command."""

    KILL_WORKER = "worker killed"
    KILL_COMMAND = "command killed"
    KILL_ALL = "all killed at once"
    INTERRUPT = "SIGINT"
    TERMINATE = "SIGTERM"
    PAUSE_WORKER = "worker paused"
    PAUSE_COMMAND = "command paused"
    STOP = "stop"


# The exit codes of commands that the disturbance ends; after the others, a command continues or ends normally.
_CODES = {
    Kind.KILL_COMMAND: -signal.SIGKILL,
    Kind.KILL_ALL: -signal.SIGKILL,
    Kind.INTERRUPT: 128 + signal.SIGINT,
    Kind.TERMINATE: 128 + signal.SIGTERM,
}
_SIGNALS = {
    Kind.KILL_WORKER: signal.SIGKILL,
    Kind.KILL_COMMAND: signal.SIGKILL,
    Kind.INTERRUPT: signal.SIGINT,
    Kind.TERMINATE: signal.SIGTERM,
    Kind.PAUSE_WORKER: signal.SIGSTOP,
    Kind.PAUSE_COMMAND: signal.SIGSTOP,
}


class Disturber:
    """Disturbs one command.

    Attributes:
        kinds: The disturbances so far, in order.
        problems: The problems of the disturbances themselves.
    """

    def __init__(self, folder: Path, training: Training, trials: int, rng: random.Random) -> None:
        """Prepare to disturb a command; `trials` is the number of trials of the complete study in the folder."""
        self.kinds: list[Kind] = []
        self.problems: list[str] = []
        self._folder = folder
        self._training = training
        self._trials = trials
        self._rng = rng

    @property
    def code(self) -> int | None:
        """The exit code that the last disturbance must produce; None if the command ends normally."""
        return _CODES.get(self.kinds[-1]) if self.kinds else None

    def disturb(self) -> None:
        """Disturb the command in a random way that is possible now; do nothing if there is none."""
        possible = list(self._possible(survey(self._folder)))
        if possible:
            kind = self._rng.choice(possible)
            self.kinds.append(kind)
            self._do(kind)

    def _possible(self, state: Survey) -> Iterator[Kind]:
        from studies import MAX_CRASHES

        has_workers = bool(self._training.workers())
        # The program ends a trial as crashed after too many consecutive crashes.
        may_kill = state.crashes < MAX_CRASHES - 1
        is_far_from_end = state.finished <= self._trials - _MIN_PENDING_TRIALS and Kind.STOP not in self.kinds
        has_handlers = bool(self._training.output) and is_far_from_end
        conditions = {
            Kind.KILL_WORKER: may_kill and has_workers and self.kinds.count(Kind.KILL_WORKER) < _MAX_WORKER_KILLS,
            Kind.KILL_COMMAND: may_kill,
            Kind.KILL_ALL: may_kill,
            Kind.INTERRUPT: has_handlers,
            Kind.TERMINATE: has_handlers,
            Kind.PAUSE_WORKER: has_workers,
            Kind.PAUSE_COMMAND: True,
            Kind.STOP: state.trials > 0,
        }
        return (kind for kind, is_possible in conditions.items() if is_possible)

    def _do(self, kind: Kind) -> None:
        training, workers = self._training, self._training.workers()
        worker = self._rng.choice(workers) if workers else None
        if kind is Kind.STOP:
            if problem := problem_of(run_tuner(self._folder, "stop", "--output-dir", OUTPUT)):
                self.problems.append(f"stop: {problem}")
        elif kind is Kind.KILL_ALL:
            training.kill_all()
        elif target := worker if kind in (Kind.KILL_WORKER, Kind.PAUSE_WORKER) else training:
            with contextlib.suppress(psutil.Error):  # the worker has just exited
                target.send_signal(_SIGNALS[kind])
                if _SIGNALS[kind] == signal.SIGSTOP:
                    time.sleep(self._rng.uniform(_MIN_PAUSE_S, _MAX_PAUSE_S))
                    target.send_signal(signal.SIGCONT)
