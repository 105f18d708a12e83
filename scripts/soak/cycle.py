"""One small study from start to end, with injected faults, while dashboard, status and export read it."""

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

from soak.fault_injection import Fault, FaultInjector
from soak.invariants import examine, results_problems
from soak.retraining import retrain
from soak.training import Training, kill_processes_in, orphans_in, processes_in, wait_for_orphans
from soak.watcher import Watcher

WORKERS = 2
STARTED_WITH_ORPHANS = "start with orphaned workers"
_MIN_FAULTS, _MAX_FAULTS = 4, 9
# Longer than the start of a command, a little shorter than a study without faults.
_MAX_DELAY_S = 9.0
_MAX_COMMANDS = 60


@dataclass
class SoakedStudy(StudyOutcome):
    """Outcome of one study.

    Attributes:
        faults: Number of injected faults of each kind.
        commands: Number of commands until the study was complete.
        polls: Results of polling the study.
        trials: Number of trials.
        epochs: Number of epochs of all trials in total.
        retrained: Number of trials that were retrained without faults.
        equal: Number of retrained trials that gave the same bits.
        not_retrained: Number of trials that were not retrained, because crashes had changed how they were trained.
        folder_bytes: Size of the study's files at the end.
    """

    faults: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    polls: Polls = field(default_factory=Polls)
    trials: int = 0
    epochs: int = 0
    retrained: int = 0
    equal: int = 0
    not_retrained: int = 0
    folder_bytes: int = 0


class Cycle:
    """A run of one study with injected faults until it is complete, and the check of the result."""

    def __init__(self, small: FixtureStudy, name: str, rng: random.Random) -> None:
        """Prepare a study in the subfolder `name` of the work folder; `rng` makes all random choices."""
        self._small = small
        self._folder = small.folder / name
        self._rng = rng
        self._study = SoakedStudy(name)
        self._remaining_faults = rng.randint(_MIN_FAULTS, _MAX_FAULTS)
        self._starts_with_orphans = False

    def run(self) -> SoakedStudy:
        """Run and check the study; return its outcome. The study's folder is only kept if a problem was found.

        Raises:
            HarnessError: The polling process failed.
        """
        started_s = time.monotonic()
        self._folder.mkdir()
        study, watcher = self._study, Watcher(self._folder, self._rng.randrange(2**32))
        is_complete = False
        try:
            is_complete = self._run_until_complete()
        except HarnessError as error:
            study.problems.append(f"the study cannot be read: {error}")
        finally:
            if not is_complete:
                kill_processes_in(self._folder)
            study.polls = watcher.end()
        study.problems += study.polls.problems
        if remaining := processes_in(self._folder):
            study.problems.append(f"processes still running after the last command: {', '.join(map(str, remaining))}")
            kill_processes_in(self._folder)
        if is_complete:
            study.problems += self._final_problems()
        study.seconds = time.monotonic() - started_s
        if not study.problems:
            shutil.rmtree(self._folder)
        return study

    def _run_until_complete(self) -> bool:
        """Run commands with faults one after the other; return whether they completed the study."""
        study, after = self._study, Survey()
        while study.commands < _MAX_COMMANDS:
            study.commands += 1
            before = after
            training, injector = self._run_command()
            after = survey(self._folder)
            study.problems += injector.problems
            study.problems += self._command_problems(training, injector, before, after)
            if training.hung or (training.code == 0 and after.finished >= self._small.trials):
                return not training.hung
            self._starts_with_orphans = self._keep_orphans(training)
            if not self._starts_with_orphans and (orphans := wait_for_orphans(self._folder)):
                study.problems.append(
                    f"workers of command {study.commands} are still running: {', '.join(map(str, orphans))}"
                )
                return False
        study.problems.append(f"the study is incomplete after {_MAX_COMMANDS} commands")
        return False

    def _keep_orphans(self, training: Training) -> bool:
        """Choose at random whether the next command starts while workers of this killed command are still running."""
        keeps = training.code == -signal.SIGKILL and self._rng.random() < 0.5 and bool(orphans_in(self._folder))
        self._study.faults[STARTED_WITH_ORPHANS] += keeps
        return keeps

    def _run_command(self) -> tuple[Training, FaultInjector]:
        number = self._study.commands
        command = self._small.run if number % 2 else self._small.resume
        training = Training(self._folder, [*command, "--workers", str(WORKERS)], number)
        injector = FaultInjector(self._folder, training, self._small.trials, self._rng)
        while self._remaining_faults and training.code is None and injector.code is None:
            self._remaining_faults -= 1
            delay_s = self._rng.uniform(0.0, _MAX_DELAY_S)
            training.wait(partial(le, delay_s))
            if training.code is None:
                injector.inject()
        training.wait()
        self._study.faults.update(map(str, injector.faults))
        return training, injector

    def _command_problems(
        self, training: Training, injector: FaultInjector, before: Survey, after: Survey
    ) -> Iterator[str]:
        # `resume` refuses a study that has not been created completely.
        may_refuse = not self._study.commands % 2 and before.trials < self._small.trials
        problems = exit_problems(
            training.code,
            training.output,
            hung=training.hung,
            is_complete=after.finished >= self._small.trials,
            expected={injector.code, *(REFUSALS if may_refuse else {0})},
            may_be_incomplete=may_refuse or self._starts_with_orphans or Fault.STOP in injector.faults,
        )
        name = f"command {self._study.commands} ({', '.join(injector.faults) or 'no faults'})"
        for problem in (*problems, *after.problems_after(before, self._small.trials)):
            yield f"{name} {problem}"

    def _final_problems(self) -> Iterator[str]:
        """Check the complete study, and retrain its trials; yield the problems."""
        study, folder = self._study, self._folder
        study.folder_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        try:
            found = in_fork(examine, self._small, folder)
            study.trials, study.epochs, study.not_retrained = found.trials, found.epochs, len(found.not_reproducible)
            yield from found.problems
            yield from results_problems(folder)
            for retrained in in_forks(retrain, [(folder, share, WORKERS) for share in range(WORKERS)]):
                problems = list(filter(None, retrained.values()))
                study.retrained += len(retrained)
                study.equal += len(retrained) - len(problems)
                yield from problems
        except HarnessError as error:
            yield f"the study cannot be read: {error}"
