"""The process that is killed: it runs a command of the program and kills itself at a point that its task names."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from harness.kill_points import watch_kill_points
from harness.processes import environment, python
from harness.replacement import watch
from harness.survey import next_crash_count

from kills.event_log import EventKind, EventLog


@dataclass(frozen=True)
class Task:
    """The command that a process runs, and the points at which the process kills itself.

    Attributes:
        command: Arguments of ``khmer-tuner``.
        start: Number of the process within its study, from 1.
        kill_at: For each point, the passage, from 1, at which the process kills itself. The first one kills it.
    """

    command: list[str]
    start: int
    kill_at: dict[str, int] = field(default_factory=dict)


def perform(task: Task) -> int:
    """Run the command of a task in the working directory and log its events; return the exit code."""
    from tuner.__main__ import main

    log = EventLog(Path(), task.start)
    watcher = _Watcher(task, log)
    # These watchers are registered first, so after a call they log the event before a kill point kills the process.
    watch("tuner.training.loop.run_epoch", before=watcher.epoch_started)
    watch("os.replace", after=watcher.file_renamed)
    watch("studies.trials.claims.take_over_running", after=watcher.taken_over)
    watch("optuna.trial.Trial.report", after=watcher.progressed)
    watch("optuna.study.Study.tell", after=watcher.progressed)
    watch_kill_points(watcher.passed)
    code = main(task.command)
    log.append(EventKind.EXIT, passages=dict(watcher.passages))
    return code


def perform_in_new_interpreter(task: Task, hash_seed: int) -> NoReturn:
    """Replace this process with a new interpreter that has this hash seed and performs the task."""
    arguments = python(["-m", "kills.child", json.dumps(asdict(task))])
    os.execve(sys.executable, arguments, environment(PYTHONHASHSEED=str(hash_seed)))


class _Watcher:
    """Callbacks that log the events of this process and kill it at a point of its task."""

    def __init__(self, task: Task, log: EventLog) -> None:
        self.passages: Counter[str] = Counter()
        self._kill_at = dict(task.kill_at)
        self._is_at_crash_limit = False
        self._log = log
        self._epoch = 0

    def passed(self, point: str) -> None:
        self.passages[point] += 1
        if self._is_at_crash_limit or point not in self._kill_at:
            return
        self._kill_at[point] -= 1
        if self._kill_at[point] == 0:
            self._log.append(EventKind.KILL, point=point)
            os.kill(os.getpid(), signal.SIGKILL)

    def epoch_started(self, training: Any, *rest: Any) -> None:
        self._epoch = len(training.history) + 1
        self._log.append(EventKind.EPOCH_STARTED, trial=training.config.experiment_name, epoch=self._epoch)

    def file_renamed(self, source: os.PathLike[str], target: os.PathLike[str], **named: Any) -> None:
        path = Path(target)
        if path.name == "last.pt":
            self._log.append(EventKind.EPOCH_SAVED, trial=path.parent.parent.name, epoch=self._epoch)

    def taken_over(self, study: Any, trial: Any, *rest: Any) -> None:
        from studies import MAX_CRASHES

        # One more crash before the next progress would make the program end the trial as crashed.
        self._is_at_crash_limit = next_crash_count(trial) >= MAX_CRASHES - 1
        if self._is_at_crash_limit:
            self._log.append(EventKind.CRASH_LIMIT)

    def progressed(self, *arguments: Any, **named: Any) -> None:
        if self._is_at_crash_limit:
            self._is_at_crash_limit = False
            self._log.append(EventKind.PROGRESS)


if __name__ == "__main__":
    sys.exit(perform(Task(**json.loads(sys.argv[1]))))
