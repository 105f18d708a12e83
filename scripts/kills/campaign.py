"""A study that is killed again and again until it is complete, and what became of it."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.comparison import first_of, reference_snapshot, told_differences
from harness.databases import Databases
from harness.fixture_study import FixtureStudy
from harness.processes import Ending, HarnessError, has_unexpected_error, in_fork, last_words, start, wait
from harness.snapshot import Snapshot, differences, experiment_names, take_snapshot
from harness.survey import Survey, survey

from kills.child import Orders, become_new, obey
from kills.diary import Entry, What, read_diary
from kills.schedule import RANDOM_MOMENT, Plan, Schedule

_MOST_STARTS = 150
# What a command exits with that has nothing to do or refuses to do it.
_REFUSALS = (0, 1, 2)


@dataclass(frozen=True)
class Reference:
    """A study that nothing disturbed.

    Attributes:
        picture: What it left behind.
        passages: How often it passed each point.
        epochs: How many epochs it trained.
        seconds: How long it took.
        first_epoch_s: Seconds from its start until its first epoch began.
    """

    snapshot: Snapshot
    passages: dict[str, int]
    epochs: int
    seconds: float
    first_epoch_s: float


@dataclass
class Story:
    """What happened to one study.

    Attributes:
        name: Its folder's name.
        deaths: Where its processes were killed, in order.
        starts: How many processes it took.
        seconds: How long it took.
        problems: What is wrong with it; empty if it equals the reference.
        lost: Trials that it lacks.
        doubled: Trials that it has too often.
        epochs_begun: Epochs that were begun, again or not.
        trained_again: Epochs that were begun although their checkpoint was on the disk.
        first_epoch_s: Seconds from the start of a new study until an epoch began.
        resumed_epoch_s: Seconds from a start after a kill until an epoch began.
    """

    name: str
    deaths: list[str] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    epochs_begun: int = 0
    trained_again: int = 0
    first_epoch_s: list[float] = field(default_factory=list)
    resumed_epoch_s: list[float] = field(default_factory=list)


class Campaign:
    """Kills the processes of studies, all in one work folder."""

    def __init__(self, small: FixtureStudy, databases: Databases, rng: random.Random, *, fresh: bool) -> None:
        """Take what all studies have in common.

        Args:
            small: The study to kill.
            databases: Where each of them keeps what it knows.
            rng: The source of all chance.
            fresh: Whether each process is a new interpreter.
        """
        self._small = small
        self._databases = databases
        self._rng = rng
        self._fresh = fresh

    def undisturbed(self) -> Reference:
        """Run a study that nothing disturbs.

        Raises:
            HarnessError: It fails, or does not show all that a study can show.
        """
        folder = self._new_study("reference")
        ending = self._live(folder, Orders(self._small.run, 1), Plan())
        snapshot = reference_snapshot(self._small, folder, ending)
        self._databases.end(folder)
        diary = read_diary(folder)
        return Reference(
            snapshot=snapshot,
            passages=next(entry.passages or {} for entry in diary if entry.what is What.PASSED),
            epochs=_count(diary, What.BEGUN),
            seconds=ending.seconds,
            first_epoch_s=next(_waits(diary, ending)),
        )

    def tortured(self, name: str, schedule: Schedule, reference: Reference, kills: int) -> Story:
        """Begin a study, kill its processes until so many are dead, let the last one end it, and compare.

        The study's folder stays if anything is wrong.
        """
        begun_s = time.monotonic()
        story, folder = Story(name), self._new_study(name)
        schedule.begin_study()
        state = Survey()
        while story.starts < _MOST_STARTS:
            story.starts += 1
            plan = schedule.plan(state) if len(story.deaths) < kills else Plan()
            ending, state = self._one_life(story, folder, plan, schedule, state)
            if story.problems or (ending.code is not None and state.ended == self._small.trials):
                break
        else:
            story.problems.append(f"{_MOST_STARTS} processes did not bring it to an end")
        self._compare(story, folder, state, reference)
        self._databases.end(folder)
        story.problems += self._databases.leaks(folder)
        story.seconds = time.monotonic() - begun_s
        if not story.problems:
            shutil.rmtree(folder)
        return story

    def _one_life(
        self, story: Story, folder: Path, plan: Plan, schedule: Schedule, before: Survey
    ) -> tuple[Ending, Survey]:
        command = self._small.run if story.starts % 2 else self._small.resume
        orders = Orders(command, story.starts, plan.deadly, spared=before.is_at_the_limit)
        ending = self._live(folder, orders, plan)
        diary = read_diary(folder, story.starts)
        if ending.code is None and not ending.hung:
            point = next((entry.point for entry in diary if entry.what is What.KILL), RANDOM_MOMENT)
            if point == RANDOM_MOMENT and plan.lifetime_s is None:
                story.problems.append(f"process {story.starts} was killed by somebody else")
            schedule.killed_at(point)
            story.deaths.append(point)
        after = survey(folder)
        story.lost += max(0, before.trials - after.trials)
        story.problems += self._problems(ending, orders, before, after, folder)
        waits = story.resumed_epoch_s if before.is_running else [] if before.trials else story.first_epoch_s
        waits.extend(list(_waits(diary, ending))[:1])
        return ending, after

    def _live(self, folder: Path, orders: Orders, plan: Plan) -> Ending:
        hash_seed = self._rng.randrange(1, 2**32) if self._fresh else None
        started_s = time.monotonic()
        pid = start(partial(obey, orders) if hash_seed is None else partial(become_new, orders, hash_seed), folder)
        ending = self._wait(pid, started_s, plan, folder, orders)
        self._databases.settle()
        return ending

    def _wait(self, pid: int, started_s: float, plan: Plan, folder: Path, orders: Orders) -> Ending:
        if plan.lifetime_s is None:
            return wait(pid, started_s)
        lifetime_s, since_s = plan.lifetime_s, started_s if not orders.spared else None

        def is_time_to_kill(now_s: float) -> bool:
            nonlocal since_s
            if since_s is None and _count(read_diary(folder, orders.start), What.GOT_ON):
                since_s = now_s
            return since_s is not None and now_s - since_s > lifetime_s

        return wait(pid, started_s, is_time_to_kill)

    def _problems(self, ending: Ending, orders: Orders, before: Survey, after: Survey, folder: Path) -> Iterator[str]:
        if ending.hung:
            yield f"process {orders.start} hung:\n{last_words(folder)}"
        if after.trials < before.trials or after.ended < before.ended:
            yield f"process {orders.start} lost trials: {before} became {after}"
        if after.trials > self._small.trials:
            yield f"process {orders.start} left {after.trials} trials, more than the study is to have"
        # `resume` can do nothing for a study that has not wholly begun, and says so.
        may_fail = orders.command == self._small.resume and before.trials < self._small.trials
        if ending.code is None or (may_fail and ending.code in _REFUSALS and not has_unexpected_error(folder)):
            return
        if ending.code != 0:
            yield f"process {orders.start} ended with {ending.code}:\n{last_words(folder)}"
        elif after.ended < self._small.trials:
            yield f"process {orders.start} ended and left the study incomplete:\n{last_words(folder)}"

    def _compare(self, story: Story, folder: Path, state: Survey, reference: Reference) -> None:
        diary = read_diary(folder)
        story.epochs_begun = _count(diary, What.BEGUN)
        story.doubled = max(0, state.trials - self._small.trials)
        if again := list(_trained_again(diary)):
            story.trained_again = len(again)
            story.problems.append(f"epochs begun again although their checkpoint was written: {first_of(again)}")
        if story.problems:
            return
        try:
            snapshot = in_fork(take_snapshot, folder)
        except HarnessError as error:
            story.problems.append(f"cannot be read: {error}")
            return
        expected, found = (Counter(experiment_names(one)) for one in (reference.snapshot, snapshot))
        story.lost, story.doubled = (expected - found).total(), (found - expected).total()
        if differing := differences(reference.snapshot, snapshot):
            story.problems.append(told_differences(folder, differing))

    def _new_study(self, name: str) -> Path:
        folder = self._small.folder / name
        folder.mkdir()
        self._databases.begin(name)
        return folder


def _count(diary: list[Entry], what: What) -> int:
    return sum(entry.what is what for entry in diary)


def _waits(diary: list[Entry], ending: Ending) -> Iterator[float]:
    """Yield the seconds from a process's start until each epoch that it began."""
    return (entry.time_s - ending.started_s for entry in diary if entry.what is What.BEGUN)


def _trained_again(diary: list[Entry]) -> Iterator[str]:
    saved: set[tuple[str, int]] = set()
    for entry in diary:
        epoch = (entry.trial, entry.epoch)
        if entry.what is What.SAVED:
            saved.add(epoch)
        elif entry.what is What.BEGUN and epoch in saved:
            yield f"{entry.trial} {entry.epoch}"
