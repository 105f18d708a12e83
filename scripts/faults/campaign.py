"""A study whose disk fails once, and what became of it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.comparison import reference_snapshot, told_differences
from harness.fixture_study import OUTPUT, FixtureStudy
from harness.processes import LOG_NAME, Ending, HarnessError, in_fork, start, wait
from harness.snapshot import Snapshot, differences, take_snapshot
from harness.survey import survey

from faults.calls import Call, read_calls
from faults.child import Fault, run_command
from faults.plan import Injection

_EXPORTED = "exported.json"
_LAST_LINES = 12
_REASONS = {
    # Of a journal that it could not make or remove, SQLite does not know why.
    Fault.FULL: r"No space left on device.*; make room|disk is full; make room|unable to open.*room on the disk"
    r"|disk I/O error; check that disk \(full",
    Fault.ERROR: r"Input/output error; check|disk I/O error; check|unable to open database file; make",
}


@dataclass
class Story:
    """What happened to one study.

    Attributes:
        injection: What failed.
        code: Exit code of the process under which it failed; None if it was killed.
        said: What that process printed.
        problems: What is wrong; empty if everything is as it should be.
    """

    injection: Injection
    code: int | None = None
    said: str = ""
    problems: list[str] = field(default_factory=list)


class Campaign:
    """Lets the disk fail under studies, all in one work folder."""

    def __init__(self, small: FixtureStudy) -> None:
        """Take the study."""
        self._small = small

    def undisturbed(self) -> tuple[Snapshot, list[Call]]:
        """Return what a study that nothing disturbs leaves behind, and the calls that it makes.

        Raises:
            HarnessError: It fails, or does not show all that a study can show.
        """
        folder = self._small.folder / "reference"
        folder.mkdir()
        ending, _ = _live(partial(run_command, self._small.run, 0, Fault.KILL), folder)
        return reference_snapshot(self._small, folder, ending), read_calls(folder)

    def disturbed(self, name: str, injection: Injection, reference: Snapshot) -> Story:
        """Let the disk fail under a study, look into it, go on with it, and compare.

        The study's folder stays if anything is wrong.
        """
        story, folder = Story(injection), self._small.folder / name
        folder.mkdir()
        story.problems += self._problems(story, folder, reference)
        if not story.problems:
            shutil.rmtree(folder)
        return story

    def _problems(self, story: Story, folder: Path, reference: Snapshot) -> Iterator[str]:
        act = partial(run_command, self._small.run, story.injection.call.number, story.injection.fault)
        ending, story.said = _live(act, folder)
        story.code = ending.code
        yield from _fault_problems(story, ending, folder)
        try:
            begun = survey(folder).trials
            for command in (["status", "--output-dir", OUTPUT], ["export", "--output-dir", OUTPUT, *_results()]):
                looked, said = _live(partial(_give, command), folder)
                yield from _look_problems(command[0], looked, said, has_begun=bool(begun))
            # `resume` can do nothing for a study that has not wholly begun, and says so.
            command = self._small.resume if begun == self._small.trials else self._small.run
            ended, said = _live(partial(_give, command), folder)
            if ended.code != 0:
                yield f"{command[0]} ended with {ended.code}:\n{_end_of(said)}"
                return
            (folder / _EXPORTED).unlink(missing_ok=True)
            if differing := differences(reference, in_fork(take_snapshot, folder)):
                yield told_differences(folder, differing)
        except HarnessError as error:
            yield f"cannot be read: {error}"


def _fault_problems(story: Story, ending: Ending, folder: Path) -> Iterator[str]:
    """Yield what is wrong with how the process under which the disk failed took it."""
    fault, planned = story.injection.fault, story.injection.call
    call = next((call for call in read_calls(folder) if call.number == planned.number), None)
    if call is None or call.kind != planned.kind:
        yield f"the call was {call and call.kind}, not {planned.kind}"
    if ending.hung:
        yield f"it hung:\n{_end_of(story.said)}"
    elif fault is Fault.KILL:
        if ending.code is not None:
            yield f"it was not killed, and ended with {ending.code}"
    elif ending.code not in (0, 2) or "Traceback" in story.said or "unexpected" in story.said:
        yield f"it ended with {ending.code}:\n{_end_of(story.said)}"
    elif ending.code == 2:
        errors = [line for line in story.said.splitlines() if line.startswith("error: ")]
        if len(errors) != 1 or str(folder) not in errors[0] or not re.search(_REASONS[fault], errors[0]):
            yield f"its message does not say what is wrong where:\n{_end_of(story.said)}"


def _look_problems(command: str, ending: Ending, said: str, *, has_begun: bool) -> Iterator[str]:
    """Yield what is wrong with a look into the study."""
    if ending.code not in ((0,) if has_begun else (0, 2)) or "Traceback" in said:
        yield f"{command} ended with {ending.code}:\n{_end_of(said)}"


def _end_of(said: str) -> str:
    return "\n".join(f"    {line}" for line in said.splitlines()[-_LAST_LINES:])


def _results() -> list[str]:
    return ["--results-file", _EXPORTED]


def _give(command: list[str]) -> int:
    from tuner.__main__ import main

    return main(command)


def _live(act: Callable[[], int], folder: Path) -> tuple[Ending, str]:
    """Return how a process in a folder ends, and what it prints."""
    log = folder / LOG_NAME
    before = log.stat().st_size if log.exists() else 0
    started_s = time.monotonic()
    ending = wait(start(act, folder), started_s)
    return ending, log.read_bytes()[before:].decode("utf-8", "replace")
