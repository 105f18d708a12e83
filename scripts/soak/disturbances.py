"""Ways to disturb a command that trains a study, and when each is possible."""

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
from harness.processes import give, problem_of
from harness.survey import Survey, survey

from soak.training import Training

# A worker that is killed again and again before it has claimed a trial is not replaced any more.
_MOST_WORKER_KILLS = 3
# With fewer pending trials, or after a stop, a command may be so near its end that no handler is left for a signal.
_TRIALS_BEFORE_THE_END = 3
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0


class Kind(StrEnum):
    """A way to disturb."""

    KILL_WORKER = "worker killed"
    KILL_COMMAND = "command killed"
    KILL_ALL = "all killed at once"
    INTERRUPT = "SIGINT"
    TERMINATE = "SIGTERM"
    PAUSE_WORKER = "worker paused"
    PAUSE_COMMAND = "command paused"
    STOP = "stop"


# The exit codes of commands that are ended; all others continue, or end by themselves.
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
        kinds: What it did, in order.
        problems: What went wrong with it.
    """

    def __init__(self, folder: Path, training: Training, trials: int, rng: random.Random) -> None:
        """Prepare for a command that trains the study of a folder, which is complete with this many trials."""
        self.kinds: list[Kind] = []
        self.problems: list[str] = []
        self._folder = folder
        self._training = training
        self._trials = trials
        self._rng = rng

    @property
    def code(self) -> int | None:
        """The exit code that the last disturbance must give the command; None if it is to end by itself."""
        return _CODES.get(self.kinds[-1]) if self.kinds else None

    def disturb(self) -> None:
        """Disturb the command in one of the ways that are possible now, if there is one."""
        possible = list(self._possible(survey(self._folder)))
        if possible:
            kind = self._rng.choice(possible)
            self.kinds.append(kind)
            self._do(kind)

    def _possible(self, state: Survey) -> Iterator[Kind]:
        from studies import MAX_CRASHES

        has_workers = bool(self._training.workers())
        # A trial whose processes die many times in a row fails.
        may_kill = state.deaths < MAX_CRASHES - 1
        is_far_from_its_end = state.ended <= self._trials - _TRIALS_BEFORE_THE_END and Kind.STOP not in self.kinds
        has_handlers = bool(self._training.output) and is_far_from_its_end
        conditions = {
            Kind.KILL_WORKER: may_kill and has_workers and self.kinds.count(Kind.KILL_WORKER) < _MOST_WORKER_KILLS,
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
            if problem := problem_of(give(self._folder, "stop", "--output-dir", OUTPUT)):
                self.problems.append(f"stop: {problem}")
        elif kind is Kind.KILL_ALL:
            training.kill_all()
        elif target := worker if kind in (Kind.KILL_WORKER, Kind.PAUSE_WORKER) else training:
            with contextlib.suppress(psutil.Error):  # the worker has just exited
                target.send_signal(_SIGNALS[kind])
                if _SIGNALS[kind] == signal.SIGSTOP:
                    time.sleep(self._rng.uniform(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S))
                    target.send_signal(signal.SIGCONT)
