"""Studies whose processes are killed repeatedly, and the outcome of each study."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

from harness.comparison import StudyOutcome, abbreviated, reference_snapshot, snapshot_problems
from harness.databases import Databases
from harness.fixture_study import OUTPUT, FixtureStudy
from harness.forks import Ending, ForkedProcess, in_fork, kill, run, start, wait_for_any
from harness.processes import output_of
from harness.run import HarnessError
from harness.snapshot import experiment_names, take_snapshot
from harness.survey import REFUSALS, Survey, exit_problems, survey

from kills.child import Task, perform, perform_in_new_interpreter
from kills.event_log import Event, EventKind, is_at_crash_limit, read_events
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
        overlapping_epochs: Number of epochs, at least, during which another process was training, too.
        retrained_epochs: Number of epochs that were trained again although their checkpoint had been written.
        first_epoch_s: Seconds from the start of a process to its first epoch, per process that found no trial.
        resumed_epoch_s: Seconds from the start of a process to its first epoch, per process that found an interrupted
            trial.
    """

    kills: list[str] = field(default_factory=list)
    starts: int = 0
    missing: int = 0
    duplicates: int = 0
    epochs_started: int = 0
    overlapping_epochs: int = 0
    retrained_epochs: int = 0
    first_epoch_s: list[float] = field(default_factory=list)
    resumed_epoch_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """Format the summary; if there are problems, add all problems and all kills."""
        line = self.summary(f"{len(self.kills)} kills, {self.starts} processes, {self.seconds:.0f} s")
        return f"{line}\n  killed: {', '.join(self.kills)}" if self.problems else line


@dataclass(frozen=True)
class _Assignment:
    """The task of a process, the plan of its kill, and the progress of the study before the process started."""

    task: Task
    plan: Plan
    before: Survey


@dataclass(frozen=True)
class Campaign:
    """A reference study and studies with kills, all run in one work folder.

    Attributes:
        small: Definition that the reference study and all studies with kills share.
        databases: Databases of the studies.
        rng: Random number generator that chooses the hash seeds of new interpreters.
        fresh: Whether each process is a new interpreter instead of a process forked from the harness.
        workers: Number of processes that train a study with kills at the same time; one trains the reference study.
    """

    small: FixtureStudy
    databases: Databases
    rng: random.Random
    fresh: bool
    workers: int

    def run_reference(self) -> Reference:
        """Run the reference study, without kills; return its snapshot, counts and times.

        Raises:
            HarnessError: The process failed, or no trial ended for one of the reasons in `small.ends`.
        """
        folder = self._new_study("reference")
        ending = run(self._act(Task(self.small.run, 1)), folder)
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

    def run_earlier(self, path: Path) -> None:
        """Run another study, without kills, and write it to a study file."""
        folder = self._new_study("earlier")
        export = ["export", "--format", "study", "--output-dir", OUTPUT, "--results-file", str(path)]
        for number, command in enumerate((self.small.run, export), start=1):
            if run(self._act(Task(command, number)), folder).code != 0:
                raise HarnessError(f"the earlier study failed:\n{output_of(folder)}")
        list(self.databases.end_study(folder))

    def run_with_kills(self, name: str, schedule: Schedule, reference: Reference, kills: int) -> KilledStudy:
        """Run a study, kill up to `kills` of its processes, and compare the complete study with the reference study.

        The folder of the study is kept if there is a problem.
        """
        started_s = time.monotonic()
        study, folder = KilledStudy(name), self._new_study(name)
        schedule.start_study()
        self._run_processes(study, folder, schedule, kills)
        self._compare(study, folder, reference)
        study.problems += self.databases.end_study(folder)
        study.seconds = time.monotonic() - started_s
        if not study.problems:
            shutil.rmtree(folder)
        return study

    def _run_processes(self, study: KilledStudy, folder: Path, schedule: Schedule, kills: int) -> None:
        """Replace each process, with the other command, until it exits by itself after the study is complete."""
        state, commands, running = Survey(), [self.small.run] * self.workers, dict[ForkedProcess, _Assignment]()
        try:
            while (commands or running) and not study.problems:
                for command in commands:
                    study.starts += 1
                    planned = sum(one.plan != Plan() for one in running.values())
                    plan = schedule.plan(state) if len(study.kills) + planned < kills else Plan()
                    assignment = _Assignment(Task(command, study.starts, plan.kill_at), plan, state)
                    running[self._start(folder, assignment)] = assignment
                process, ending = wait_for_any(running)
                assignment = running.pop(process)
                self.databases.wait_until_disconnected(process.pid)
                before, state = state, survey(folder)
                self._record(study, folder, schedule, assignment, ending, state)
                study.problems += state.problems_after(before, self.small.trials)
                is_done = ending.code is not None and state.finished == self.small.trials
                commands = [] if is_done else [self._other_command(assignment.task.command)]
                if commands and study.starts >= _MAX_STARTS:
                    study.problems.append(f"the study is incomplete after {_MAX_STARTS} processes")
        finally:
            kill(running)

    def _other_command(self, command: list[str]) -> list[str]:
        return self.small.resume if command == self.small.run else self.small.run

    def _start(self, folder: Path, assignment: _Assignment) -> ForkedProcess:
        lifetime_s, number, started_s = assignment.plan.lifetime_s, assignment.task.start, time.monotonic()

        def is_time_to_kill(now_s: float) -> bool:
            is_due = lifetime_s is not None and now_s - started_s > lifetime_s
            return is_due and not is_at_crash_limit(read_events(folder, number))

        return start(self._act(assignment.task), folder, is_time_to_kill)

    def _act(self, task: Task) -> Callable[[], int]:
        if self.fresh:
            return partial(perform_in_new_interpreter, task, self.rng.randrange(1, 2**32))
        return partial(perform, task)

    def _record(
        self,
        study: KilledStudy,
        folder: Path,
        schedule: Schedule,
        assignment: _Assignment,
        ending: Ending,
        after: Survey,
    ) -> None:
        """Record in `study` how a process ended."""
        number, before = assignment.task.start, assignment.before
        events = read_events(folder, number)
        if ending.code is None and not ending.hung:
            point = next((event.point for event in events if event.kind is EventKind.KILL), RANDOM_MOMENT)
            if point == RANDOM_MOMENT and assignment.plan.lifetime_s is None:
                study.problems.append(f"process {number} was killed, but not by the harness")
            schedule.killed_at(point, after)
            study.kills.append(point)
        problems = self._exit_problems(ending, assignment, after, folder)
        study.problems += [f"process {number} {problem}" for problem in problems]
        waits = study.resumed_epoch_s if before.is_interrupted else [] if before.trials else study.first_epoch_s
        waits.extend(list(_waits(events, ending))[:1])

    def _exit_problems(self, ending: Ending, assignment: _Assignment, after: Survey, folder: Path) -> Iterator[str]:
        # `resume` refuses a study that has not been created completely.
        was_incomplete = assignment.before.trials < self.small.trials
        may_refuse = assignment.task.command == self.small.resume and was_incomplete
        return exit_problems(
            ending.code,
            output_of(folder),
            hung=ending.hung,
            is_complete=after.finished >= self.small.trials,
            expected={None, *(REFUSALS if may_refuse else {0})},
            may_be_incomplete=may_refuse,
        )

    def _compare(self, study: KilledStudy, folder: Path, reference: Reference) -> None:
        events = read_events(folder)
        study.epochs_started = _count(events, EventKind.EPOCH_STARTED)
        study.overlapping_epochs = count_overlapping_epochs(events)
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


def count_overlapping_epochs(events: list[Event]) -> int:
    """Count the epochs whose checkpoint was written directly after another process had started or finished an epoch."""
    epochs = [event for event in events if event.kind in (EventKind.EPOCH_STARTED, EventKind.EPOCH_SAVED)]
    return sum(
        event.kind is EventKind.EPOCH_SAVED and event.start != before.start for before, event in pairwise(epochs)
    )


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
