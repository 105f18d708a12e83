"""A study whose disk fails once, and what came of it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.comparison import StudyOutcome, reference_snapshot, snapshot_problems
from harness.fixture_study import OUTPUT, FixtureStudy
from harness.forks import Ending, in_fork, run_logged
from harness.processes import tail
from harness.run import HarnessError
from harness.snapshot import Snapshot, take_snapshot
from harness.survey import survey

from faults.calls import Call, Fault, Injection, read_calls
from faults.child import run_command

_EXPORTED = "exported.json"
# Commands that only read a study.
_READERS = (["status", "--output-dir", OUTPUT], ["export", "--output-dir", OUTPUT, "--results-file", _EXPORTED])
_REASONS = {
    # Of a journal that it could not create or remove, SQLite does not know the reason.
    Fault.FULL: r"No space left on device.*; make room|disk is full; make room|unable to open.*room on the disk"
    r"|disk I/O error; check that disk \(full",
    Fault.ERROR: r"Input/output error; check|disk I/O error; check|unable to open database file; make",
}


@dataclass(kw_only=True)
class FaultyStudy(StudyOutcome):
    """What came of one study.

    Attributes:
        injection: The call that failed.
        code: Exit code of the process in which it failed; None if it was killed.
        output: What that process printed.
    """

    injection: Injection
    code: int | None = None
    output: str = ""

    @property
    def exit(self) -> str:
        """How the process in which the call failed ended."""
        return "killed" if self.code is None else f"exit {self.code}"


@dataclass(frozen=True)
class Campaign:
    """Lets the disk fail under copies of a study, all in one work folder."""

    small: FixtureStudy

    def undisturbed(self) -> tuple[Snapshot, list[Call]]:
        """Return what a study that nothing disturbs leaves behind, and its calls.

        Raises:
            HarnessError: It fails, or its trials do not end in all ways that a trial can.
        """
        folder = self.small.folder / "reference"
        folder.mkdir()
        ending, _ = run_logged(partial(run_command, self.small.run, 0, Fault.KILL), folder)
        return reference_snapshot(self.small, folder, ending), read_calls(folder)

    def disturbed(self, name: str, injection: Injection, reference: Snapshot) -> FaultyStudy:
        """Let the disk fail under a study, read it, resume it, and compare.

        The study's folder is kept if there is a problem.
        """
        begun_s = time.monotonic()
        study, folder = FaultyStudy(name, injection=injection), self.small.folder / name
        folder.mkdir()
        study.problems += self._problems(study, folder, reference)
        study.seconds = time.monotonic() - begun_s
        if not study.problems:
            shutil.rmtree(folder)
        return study

    def _problems(self, study: FaultyStudy, folder: Path, reference: Snapshot) -> Iterator[str]:
        injection = study.injection
        act = partial(run_command, self.small.run, injection.call.number, injection.fault)
        ending, study.output = run_logged(act, folder)
        study.code = ending.code
        yield from fault_problems(injection, ending, study.output, folder)
        try:
            trials = survey(folder).trials
            for command in _READERS:
                read, output = run_logged(partial(_give, command), folder)
                if read.code not in ((0,) if trials else (0, 2)) or "Traceback" in output:
                    yield f"{command[0]} ended with {read.code}:\n{tail(output)}"
            # `resume` can do nothing for a study that has not been created completely, and says so.
            command = self.small.resume if trials == self.small.trials else self.small.run
            ended, output = run_logged(partial(_give, command), folder)
            if ended.code != 0:
                yield f"{command[0]} ended with {ended.code}:\n{tail(output)}"
                return
            (folder / _EXPORTED).unlink(missing_ok=True)
            yield from snapshot_problems(reference, in_fork(take_snapshot, folder), folder)
        except HarnessError as error:
            yield f"cannot be read: {error}"


def fault_problems(injection: Injection, ending: Ending, output: str, folder: Path) -> Iterator[str]:
    """Yield what is wrong with how the process ended in which a call failed."""
    fault, planned = injection.fault, injection.call
    call = next((call for call in read_calls(folder) if call.number == planned.number), None)
    if call is None or call.kind != planned.kind:
        yield f"the call was {call and call.kind}, not {planned.kind}"
    if ending.hung:
        yield f"it hung:\n{tail(output)}"
    elif fault is Fault.KILL:
        if ending.code is not None:
            yield f"it was not killed, and ended with {ending.code}"
    elif ending.code not in (0, 2) or "Traceback" in output or "unexpected" in output:
        yield f"it ended with {ending.code}:\n{tail(output)}"
    elif ending.code == 2:
        errors = [line for line in output.splitlines() if line.startswith("error: ")]
        if len(errors) != 1 or str(folder) not in errors[0] or not re.search(_REASONS[fault], errors[0]):
            yield f"its message does not say what is wrong where:\n{tail(output)}"


def _give(command: list[str]) -> int:
    from tuner.__main__ import main

    return main(command)
