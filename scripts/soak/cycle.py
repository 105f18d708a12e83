"""One small study from its start to its end, disturbed and polled all the while."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import le

from harness.comparison import StudyOutcome
from harness.fixture_study import FixtureStudy
from harness.forks import in_fork, in_forks
from harness.polling import Polls
from harness.run import HarnessError
from harness.survey import REFUSALS, Survey, exit_problems, survey

from soak.disturbances import Disturber, Kind
from soak.invariants import examine, results_problems
from soak.retraining import train_again
from soak.training import Training, kill_processes_in, orphans_in, processes_in, wait_for_orphans
from soak.watcher import Watcher

WORKERS = 2
BESIDE_ORPHANS = "started beside orphans"
_FEWEST_DISTURBANCES, _MOST_DISTURBANCES = 4, 9
# Starting takes some of it, and a whole undisturbed study somewhat more.
_LONGEST_PEACE_S = 9.0
_MOST_COMMANDS = 60


@dataclass
class SoakedStudy(StudyOutcome):
    """What came of one study.

    Attributes:
        kinds: How often it was disturbed in which way.
        commands: Number of commands that it took.
        polls: What polling it came to.
        trials: Number of its trials.
        epochs: Number of their epochs.
        retrained: Number of trials that were trained again.
        equal: Number of those that gave the same bits.
        not_retrained: Number of trials that were not, since deaths had changed how they were trained.
        folder_bytes: Size of its files in the end.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    polls: Polls = field(default_factory=Polls)
    trials: int = 0
    epochs: int = 0
    retrained: int = 0
    equal: int = 0
    not_retrained: int = 0
    folder_bytes: int = 0


class Cycle:
    """Starts a study, disturbs it until it is complete, and checks what is left of it."""

    def __init__(self, small: FixtureStudy, name: str, rng: random.Random) -> None:
        """Prepare a copy of a study in a folder of this name, with a source of all randomness."""
        self._small = small
        self._folder = small.folder / name
        self._rng = rng
        self._study = SoakedStudy(name)
        self._to_come = rng.randint(_FEWEST_DISTURBANCES, _MOST_DISTURBANCES)
        self._starts_beside_orphans = False

    def run(self) -> SoakedStudy:
        """Return what came of the study; its folder is kept if there is a problem.

        Raises:
            HarnessError: The process that polls it has died.
        """
        begun_s = time.monotonic()
        self._folder.mkdir()
        study, watcher = self._study, Watcher(self._folder, self._rng.randrange(2**32))
        is_complete = False
        try:
            is_complete = self._disturb_until_complete()
        except HarnessError as error:
            study.problems.append(f"cannot be read: {error}")
        finally:
            if not is_complete:
                kill_processes_in(self._folder)
            study.polls = watcher.end()
        study.problems += study.polls.problems
        if left := processes_in(self._folder):
            study.problems.append(f"still running: {', '.join(map(str, left))}")
            kill_processes_in(self._folder)
        if is_complete:
            study.problems += self._final_problems()
        study.seconds = time.monotonic() - begun_s
        if not study.problems:
            shutil.rmtree(self._folder)
        return study

    def _disturb_until_complete(self) -> bool:
        """Run command after command; return whether they completed the study."""
        study, after = self._study, Survey()
        while study.commands < _MOST_COMMANDS:
            study.commands += 1
            before = after
            training, disturber = self._one_command()
            after = survey(self._folder)
            study.problems += disturber.problems
            study.problems += self._command_problems(training, disturber, before, after)
            if training.hung or (training.code == 0 and after.ended >= self._small.trials):
                return not training.hung
            self._starts_beside_orphans = self._leave_orphans(training)
            if not self._starts_beside_orphans and (left := wait_for_orphans(self._folder)):
                study.problems.append(f"workers of command {study.commands} do not exit: {', '.join(map(str, left))}")
                return False
        study.problems.append(f"{_MOST_COMMANDS} commands did not complete it")
        return False

    def _leave_orphans(self, training: Training) -> bool:
        """Return whether the next command starts while workers of this one, which was killed, still run."""
        is_so = training.code == -signal.SIGKILL and self._rng.random() < 0.5 and bool(orphans_in(self._folder))
        self._study.kinds[BESIDE_ORPHANS] += is_so
        return is_so

    def _one_command(self) -> tuple[Training, Disturber]:
        number = self._study.commands
        command = self._small.run if number % 2 else self._small.resume
        training = Training(self._folder, [*command, "--workers", str(WORKERS)], number)
        disturber = Disturber(self._folder, training, self._small.trials, self._rng)
        while self._to_come and training.code is None and disturber.code is None:
            self._to_come -= 1
            peace_s = self._rng.uniform(0.0, _LONGEST_PEACE_S)
            training.wait(partial(le, peace_s))
            if training.code is None:
                disturber.disturb()
        training.wait()
        self._study.kinds.update(map(str, disturber.kinds))
        return training, disturber

    def _command_problems(
        self, training: Training, disturber: Disturber, before: Survey, after: Survey
    ) -> Iterator[str]:
        # `resume` can do nothing for a study that has not been created completely, and says so.
        may_refuse = not self._study.commands % 2 and before.trials < self._small.trials
        problems = exit_problems(
            training.code,
            training.output,
            hung=training.hung,
            is_complete=after.ended >= self._small.trials,
            expected={disturber.code, *(REFUSALS if may_refuse else {0})},
            may_be_incomplete=may_refuse or self._starts_beside_orphans or Kind.STOP in disturber.kinds,
        )
        name = f"command {self._study.commands} ({', '.join(disturber.kinds) or 'left alone'})"
        for problem in (*problems, *after.problems_after(before, self._small.trials)):
            yield f"{name} {problem}"

    def _final_problems(self) -> Iterator[str]:
        """Yield what is wrong with what the study has left behind."""
        study, folder = self._study, self._folder
        study.folder_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        try:
            found = in_fork(examine, self._small, folder)
            study.trials, study.epochs, study.not_retrained = found.trials, found.epochs, len(found.not_repeatable)
            yield from found.problems
            yield from results_problems(folder)
            for retrained in in_forks(train_again, [(folder, share, WORKERS) for share in range(WORKERS)]):
                problems = list(filter(None, retrained.values()))
                study.retrained += len(retrained)
                study.equal += len(retrained) - len(problems)
                yield from problems
        except HarnessError as error:
            yield f"cannot be read: {error}"
