"""Studies whose processes are killed repeatedly, and the outcome of each study."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.comparison import StudyOutcome, abbreviated, reference_snapshot, snapshot_problems
from harness.databases import Databases
from harness.fixture_study import FixtureStudy
from harness.forks import Ending, in_fork, start, wait
from harness.processes import output_of
from harness.run import HarnessError
from harness.snapshot import experiment_names, take_snapshot
from harness.survey import REFUSALS, Survey, exit_problems, survey

from kills.child import Task, perform, perform_in_new_interpreter
from kills.event_log import Event, EventKind, read_events
from kills.schedule import RANDOM_MOMENT, Plan, Reference, Schedule

_MAX_STARTS = 150


@dataclass
class KilledStudy(StudyOutcome):
    """Outcome of one study whose processes were killed.

    Attributes:
        kills: Names of the points at which processes were killed, in order of time.
        starts: Number of processes that were started.
        missing: Number of trials of the reference study that this study lacks.
        duplicates: Number of trials that this study has in addition to those of the reference study.
        epochs_started: Number of epochs that were started, in total; a repeated epoch counts again.
        retrained_epochs: Number of epochs that were trained again although their checkpoint had been written.
        first_epoch_s: Seconds from the start of a process to its first epoch, per process that found no trial.
        resumed_epoch_s: Seconds from the start of a process to its first epoch, per process that found a running trial.
    """

    kills: list[str] = field(default_factory=list)
    starts: int = 0
    missing: int = 0
    duplicates: int = 0
    epochs_started: int = 0
    retrained_epochs: int = 0
    first_epoch_s: list[float] = field(default_factory=list)
    resumed_epoch_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """Format the summary; if there are problems, add all problems and all kills."""
        line = self.summary(f"{len(self.kills)} kills, {self.starts} processes, {self.seconds:.0f} s")
        return f"{line}\n  killed: {', '.join(self.kills)}" if self.problems else line


@dataclass(frozen=True)
class Campaign:
    """A reference study and studies with kills, all run in one work folder.

    Attributes:
        small: Definition that the reference study and all studies with kills share.
        databases: Databases of the studies.
        rng: Random number generator that chooses the hash seeds of new interpreters.
        fresh: Whether each process is a new interpreter instead of a process forked from the harness.
    """

    small: FixtureStudy
    databases: Databases
    rng: random.Random
    fresh: bool

    def run_reference(self) -> Reference:
        """Run the reference study, without kills; return its snapshot, counts and times.

        Raises:
            HarnessError: The process failed, or no trial ended for one of the reasons in `small.ends`.
        """
        folder = self._new_study("reference")
        ending = self._run_process(folder, Task(self.small.run, 1), Plan())
        snapshot = reference_snapshot(self.small, folder, ending)
        list(self.databases.end_study(folder))  # `passwords_found` searches all files later
        events = read_events(folder)
        return Reference(
            snapshot=snapshot,
            passages=next(event.passages or {} for event in events if event.kind is EventKind.EXIT),
            epochs=_count(events, EventKind.EPOCH_STARTED),
            seconds=ending.seconds,
            first_epoch_s=next(_waits(events, ending)),
        )

    def run_with_kills(self, name: str, schedule: Schedule, reference: Reference, kills: int) -> KilledStudy:
        """Run a study, kill up to `kills` of its processes, and compare the complete study with the reference study.

        The folder of the study is kept if there is a problem.
        """
        started_s = time.monotonic()
        study, folder = KilledStudy(name), self._new_study(name)
        schedule.start_study()
        state = Survey()
        while study.starts < _MAX_STARTS:
            study.starts += 1
            plan = schedule.plan(state) if len(study.kills) < kills else Plan()
            ending, state = self._one_process(study, folder, plan, schedule, state)
            if study.problems or (ending.code is not None and state.finished == self.small.trials):
                break
        else:
            study.problems.append(f"the study is incomplete after {_MAX_STARTS} processes")
        self._compare(study, folder, reference)
        study.problems += self.databases.end_study(folder)
        study.seconds = time.monotonic() - started_s
        if not study.problems:
            shutil.rmtree(folder)
        return study

    def _one_process(
        self, study: KilledStudy, folder: Path, plan: Plan, schedule: Schedule, before: Survey
    ) -> tuple[Ending, Survey]:
        command = self.small.run if study.starts % 2 else self.small.resume
        task = Task(command, study.starts, plan.kill_at, after_progress=before.is_at_crash_limit)
        ending = self._run_process(folder, task, plan)
        events, after = read_events(folder, study.starts), survey(folder)
        if ending.code is None and not ending.hung:
            point = next((event.point for event in events if event.kind is EventKind.KILL), RANDOM_MOMENT)
            if point == RANDOM_MOMENT and plan.lifetime_s is None:
                study.problems.append(f"process {study.starts} was killed, but not by the harness")
            schedule.killed_at(point, after)
            study.kills.append(point)
        problems = self._process_problems(ending, task, before, after, folder)
        study.problems += [f"process {study.starts} {problem}" for problem in problems]
        waits = study.resumed_epoch_s if before.is_running else [] if before.trials else study.first_epoch_s
        waits.extend(list(_waits(events, ending))[:1])
        return ending, after

    def _run_process(self, folder: Path, task: Task, plan: Plan) -> Ending:
        hash_seed = self.rng.randrange(1, 2**32) if self.fresh else None
        started_s = time.monotonic()
        act = partial(perform, task) if hash_seed is None else partial(perform_in_new_interpreter, task, hash_seed)
        ending = self._wait(start(act, folder), started_s, plan, folder, task)
        self.databases.wait_until_disconnected()
        return ending

    def _wait(self, pid: int, started_s: float, plan: Plan, folder: Path, task: Task) -> Ending:
        if plan.lifetime_s is None:
            return wait(pid, started_s)
        lifetime_s, since_s = plan.lifetime_s, None if task.after_progress else started_s

        def is_time_to_kill(now_s: float) -> bool:
            nonlocal since_s
            if since_s is None and _count(read_events(folder, task.start), EventKind.PROGRESS):
                since_s = now_s
            return since_s is not None and now_s - since_s > lifetime_s

        return wait(pid, started_s, is_time_to_kill)

    def _process_problems(
        self, ending: Ending, task: Task, before: Survey, after: Survey, folder: Path
    ) -> Iterator[str]:
        # `resume` refuses a study that has not been created completely.
        may_refuse = task.command == self.small.resume and before.trials < self.small.trials
        yield from exit_problems(
            ending.code,
            output_of(folder),
            hung=ending.hung,
            is_complete=after.finished >= self.small.trials,
            expected={None, *(REFUSALS if may_refuse else {0})},
            may_be_incomplete=may_refuse,
        )
        yield from after.problems_after(before, self.small.trials)

    def _compare(self, study: KilledStudy, folder: Path, reference: Reference) -> None:
        events = read_events(folder)
        study.epochs_started = _count(events, EventKind.EPOCH_STARTED)
        if repeated := list(_retrained_epochs(events)):
            study.retrained_epochs = len(repeated)
            study.problems.append(f"epochs trained again after their checkpoint was written: {abbreviated(repeated)}")
        if study.problems:
            return
        try:
            snapshot = in_fork(take_snapshot, folder)
        except HarnessError as error:
            study.problems.append(f"reading the study failed: {error}")
            return
        expected, found = (Counter(experiment_names(one)) for one in (reference.snapshot, snapshot))
        study.missing, study.duplicates = (expected - found).total(), (found - expected).total()
        study.problems += snapshot_problems(reference.snapshot, snapshot, folder)

    def _new_study(self, name: str) -> Path:
        folder = self.small.folder / name
        folder.mkdir()
        self.databases.start_study(name)
        return folder


def _count(events: list[Event], kind: EventKind) -> int:
    return sum(event.kind is kind for event in events)


def _waits(events: list[Event], ending: Ending) -> Iterator[float]:
    """Yield the seconds from the start of a process to the start of each of its epochs."""
    return (event.time_s - ending.started_s for event in events if event.kind is EventKind.EPOCH_STARTED)


def _retrained_epochs(events: list[Event]) -> Iterator[str]:
    saved: set[tuple[str, int]] = set()
    for event in events:
        epoch = (event.trial, event.epoch)
        if event.kind is EventKind.EPOCH_SAVED:
            saved.add(epoch)
        elif event.kind is EventKind.EPOCH_STARTED and epoch in saved:
            yield f"{event.trial} epoch {event.epoch}"
