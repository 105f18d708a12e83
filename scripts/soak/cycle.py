"""One small study from its beginning to its end, disturbed and looked at all the while."""

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

from harness.fixture_study import FixtureStudy
from harness.processes import HarnessError, in_fork, in_forks
from harness.survey import Survey, survey
from observers.looks import Looks

from soak.disturbances import Disturber, Kind
from soak.invariants import examine, results_problems
from soak.processes import Training, kill_processes_in, orphans_in, processes_in, wait_for_orphans
from soak.retraining import train_again
from soak.watcher import Watcher

WORKERS = 2
BESIDE_ORPHANS = "begun beside orphans"
_FEWEST_DISTURBANCES, _MOST_DISTURBANCES = 4, 9
# Starting takes some of it, and a whole undisturbed study somewhat more.
_LONGEST_PEACE_S = 9.0
_MOST_COMMANDS = 60
_LAST_CHARACTERS = 2_000


@dataclass
class Story:
    """What happened to one study.

    Attributes:
        name: Its folder's name.
        kinds: How often it was disturbed in which way.
        commands: How many commands it took.
        seconds: How long it took, with all checks.
        looks: What came of looking at it.
        problems: Invariants that it broke.
        trials: Trials that it has.
        epochs: Epochs that they have.
        again: Trials that were trained again.
        equal: Those of them that gave the same bits.
        careful: Trials that had been trained in smaller passes, and were not.
        folder_bytes: What its files take in the end.
    """

    name: str
    kinds: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    seconds: float = 0.0
    looks: Looks = field(default_factory=Looks)
    problems: list[str] = field(default_factory=list)
    trials: int = 0
    epochs: int = 0
    again: int = 0
    equal: int = 0
    careful: int = 0
    folder_bytes: int = 0


class Cycle:
    """Begins a study, disturbs it until it is complete, and checks what is left of it."""

    def __init__(self, small: FixtureStudy, name: str, rng: random.Random) -> None:
        """Take the study, a name for its folder, and the source of all chance."""
        self._small = small
        self._folder = small.folder / name
        self._rng = rng
        self._story = Story(name)
        self._to_come = rng.randint(_FEWEST_DISTURBANCES, _MOST_DISTURBANCES)
        self._begins_beside_orphans = False

    def run(self) -> Story:
        """Return how the study fared; its folder stays if it broke an invariant.

        Raises:
            HarnessError: It cannot be told.
        """
        begun_s = time.monotonic()
        self._folder.mkdir()
        story, watcher = self._story, Watcher(self._folder, self._rng.randrange(2**32))
        is_complete = False
        try:
            is_complete = self._disturb_until_complete()
        except HarnessError as error:
            story.problems.append(f"cannot be read: {error}")
        finally:
            if not is_complete:
                kill_processes_in(self._folder)
            story.looks = watcher.end()
        story.problems += story.looks.problems
        if left := processes_in(self._folder):
            story.problems.append(f"still alive: {', '.join(map(str, left))}")
            kill_processes_in(self._folder)
        if is_complete:
            story.problems += self._diagnostics()
        story.seconds = time.monotonic() - begun_s
        if not story.problems:
            shutil.rmtree(self._folder)
        return story

    def _disturb_until_complete(self) -> bool:
        """Give command after command; return whether they brought the study to its end."""
        story, after = self._story, Survey()
        while story.commands < _MOST_COMMANDS:
            story.commands += 1
            before = after
            training, disturber = self._one_command()
            after = survey(self._folder)
            story.problems += disturber.problems
            story.problems += self._command_problems(training, disturber, before, after)
            if training.hung or (training.code == 0 and after.ended >= self._small.trials):
                return not training.hung
            self._begins_beside_orphans = self._leave_orphans(training)
            if not self._begins_beside_orphans and (left := wait_for_orphans(self._folder)):
                story.problems.append(f"workers of command {story.commands} do not end: {', '.join(map(str, left))}")
                return False
        story.problems.append(f"{_MOST_COMMANDS} commands did not bring it to an end")
        return False

    def _leave_orphans(self, training: Training) -> bool:
        """Return whether the next command is to begin although workers of this one, which was killed, still live."""
        is_so = training.code == -signal.SIGKILL and self._rng.random() < 0.5 and bool(orphans_in(self._folder))
        self._story.kinds[BESIDE_ORPHANS] += is_so
        return is_so

    def _one_command(self) -> tuple[Training, Disturber]:
        number = self._story.commands
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
        self._story.kinds.update(map(str, disturber.kinds))
        return training, disturber

    def _command_problems(
        self, training: Training, disturber: Disturber, before: Survey, after: Survey
    ) -> Iterator[str]:
        """Yield what is wrong with how a command ended."""
        name = f"command {self._story.commands} ({', '.join(disturber.kinds) or 'left alone'})"
        whole = training.said
        said = f"\n{whole[-_LAST_CHARACTERS:]}"
        # `resume` can do nothing for a study that has not wholly begun, and says so.
        may_fail = not self._story.commands % 2 and before.trials < self._small.trials
        usual = {0, 1, 2} if may_fail else {0}
        may_stop_early = may_fail or self._begins_beside_orphans or Kind.STOP in disturber.kinds
        if training.hung:
            yield f"{name} hung:{said}"
        elif training.code not in usual | {disturber.code}:
            yield f"{name} ended with {training.code}:{said}"
        elif training.code == 0 and after.ended < self._small.trials and not may_stop_early:
            yield f"{name} ended and left the study incomplete:{said}"
        if "Traceback" in whole or "unexpected" in whole:
            yield f"{name} says what no user should read:{said}"
        if after.trials < before.trials or after.ended < before.ended:
            yield f"{name} lost trials: {before} became {after}"
        if after.trials > self._small.trials:
            yield f"{name} left {after.trials} trials, more than the study is to have"

    def _diagnostics(self) -> Iterator[str]:
        """Yield what is wrong with what the study has left behind."""
        story, folder = self._story, self._folder
        story.folder_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        try:
            diagnostics = in_fork(examine, self._small, folder)
            story.trials, story.epochs, story.careful = diagnostics.trials, diagnostics.epochs, len(diagnostics.careful)
            yield from diagnostics.problems
            yield from results_problems(folder)
            for retrained in in_forks(train_again, [(folder, share, WORKERS) for share in range(WORKERS)]):
                story.again += retrained.trials
                story.equal += retrained.trials - len(retrained.problems)
                yield from retrained.problems
        except HarnessError as error:
            yield f"cannot be read: {error}"
