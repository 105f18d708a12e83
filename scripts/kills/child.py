"""The process that is killed: a command of the program, which kills itself at a point if it is ordered to."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from harness.kill_points import TAKE_OVER, watch, watch_boundaries

from kills.diary import Diary, What


@dataclass(frozen=True)
class Orders:
    """What a process is to do.

    Attributes:
        command: The words after ``khmer-tuner``.
        start: Its number among the processes of its study.
        deadly: At which passage of which points it kills itself, whatever comes first.
        spared: Whether it does so, but for a take-over, only once a trial got on: the program gives up a trial that
            kills process after process without getting on.
    """

    command: list[str]
    start: int
    deadly: dict[str, int] = field(default_factory=dict)
    spared: bool = False

    def as_json(self) -> str:
        """Return the orders as text."""
        return json.dumps(asdict(self))


def obey(orders: Orders) -> int:
    """Do as ordered, in the working directory; return the command's exit code."""
    from tuner.__main__ import main

    diary = Diary(Path(), orders.start)
    life = _Life(orders, diary)
    # What is watched first is told last before a call and first after it: a process notes down, then dies.
    watch("tuner.training.loop.run_epoch", before=life.epoch_begins)
    watch("os.replace", after=life.file_renamed)
    watch("optuna.trial.Trial.report", after=life.trial_got_on)
    watch("optuna.study.Study.tell", after=life.trial_got_on)
    watch_boundaries(life.passed)
    code = main(orders.command)
    diary.note(What.PASSED, passages=dict(life.passages))
    return code


def become_new(orders: Orders, hash_seed: int) -> NoReturn:
    """Begin a new interpreter with a seed of string hashes, which obeys."""
    here = str(Path(__file__).parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": str(hash_seed)}
    os.execve(sys.executable, [sys.executable, "-m", "kills.child", orders.as_json()], environment)


class _Life:
    """What a process has been through."""

    def __init__(self, orders: Orders, diary: Diary) -> None:
        self.passages: Counter[str] = Counter()
        self._left = dict(orders.deadly)
        self._spared = orders.spared
        self._diary = diary
        self._epoch = 0

    def passed(self, point: str) -> None:
        self.passages[point] += 1
        is_spared = self._spared and not point.endswith(TAKE_OVER)
        if is_spared or point not in self._left:
            return
        self._left[point] -= 1
        if self._left[point] == 0:
            self._diary.note(What.KILL, point=point)
            os.kill(os.getpid(), signal.SIGKILL)

    def epoch_begins(self, training: Any, *rest: Any) -> None:
        self._epoch = len(training.history) + 1
        self._diary.note(What.BEGUN, training.config.experiment_name, self._epoch)

    def file_renamed(self, source: os.PathLike[str], target: os.PathLike[str], **named: Any) -> None:
        path = Path(target)
        if path.name == "last.pt":
            self._diary.note(What.SAVED, path.parent.parent.name, self._epoch)

    def trial_got_on(self, *arguments: Any, **named: Any) -> None:
        if self._spared:
            self._spared = False
            self._diary.note(What.GOT_ON)


if __name__ == "__main__":
    sys.exit(obey(Orders(**json.loads(sys.argv[1]))))
