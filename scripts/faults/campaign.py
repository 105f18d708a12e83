"""Studies in which one file-system call fails, and the outcome of each study."""

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
# Pattern of the error message that names the reason, keyed by fault.
_REASONS = {
    # SQLite does not report the reason if it cannot create or remove a journal.
    Fault.FULL: r"(No space left on device|disk is full|unable to open).*free some space on"
    r"|disk I/O error; check that disk \(full",
    Fault.ERROR: r"Input/output error; check|disk I/O error; check|unable to open database file; make",
}


@dataclass(kw_only=True)
class FaultyStudy(StudyOutcome):
    """Outcome of one study in which a file-system call failed.

    Attributes:
        injection: The fault, and the call that failed.
        code: Exit code of the process in which the call failed; None if the process was killed by SIGKILL.
        output: Output of the process in which the call failed.
    """

    injection: Injection
    code: int | None = None
    output: str = ""

    @property
    def exit(self) -> str:
        """How the process with the failing call ended: ``killed`` or ``exit CODE``."""
        return "killed" if self.code is None else f"exit {self.code}"


@dataclass(frozen=True)
class Campaign:
    """A reference study and studies with one fault each, all run in one work folder.

    Attributes:
        small: Definition that the reference study and all studies with a fault share.
    """

    small: FixtureStudy

    def run_reference(self) -> tuple[Snapshot, list[Call]]:
        """Run the reference study, without a fault; return its snapshot and its file-system calls.

        Raises:
            HarnessError: The process failed, or no trial ended for one of the reasons in `small.ends`.
        """
        folder = self.small.folder / "reference"
        folder.mkdir()
        ending, _ = run_logged(partial(run_command, self.small.run, 0, Fault.KILL), folder)
        return reference_snapshot(self.small, folder, ending), read_calls(folder)

    def run_with_fault(self, name: str, injection: Injection, reference: Snapshot) -> FaultyStudy:
        """Run a study with a fault, read and resume it, and compare the complete study with the reference study.

        The folder of the study is kept if there is a problem.
        """
        started_s = time.monotonic()
        study, folder = FaultyStudy(name, injection=injection), self.small.folder / name
        folder.mkdir()
        study.problems += self._problems(study, folder, reference)
        study.seconds = time.monotonic() - started_s
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
            allowed = (0,) if trials else (0, 2)
            for command in _READERS:
                read, output = run_logged(partial(_run_main, command), folder)
                if read.code not in allowed or "Traceback" in output:
                    expected = " or ".join(map(str, allowed))
                    yield f"{command[0]} exited with {read.code}; expected {expected} and no traceback:\n{tail(output)}"
            # `resume` refuses a study that has not been created completely.
            command = self.small.resume if trials == self.small.trials else self.small.run
            ended, output = run_logged(partial(_run_main, command), folder)
            if ended.code != 0:
                yield f"{command[0]} exited with {ended.code}; expected 0:\n{tail(output)}"
                return
            (folder / _EXPORTED).unlink(missing_ok=True)
            yield from snapshot_problems(reference, in_fork(take_snapshot, folder), folder)
        except HarnessError as error:
            yield f"reading the study failed: {error}"


def fault_problems(injection: Injection, ending: Ending, output: str, folder: Path) -> Iterator[str]:
    """Check the process in which a file-system call failed; yield its problems."""
    fault, planned = injection.fault, injection.call
    call = next((call for call in read_calls(folder) if call.number == planned.number), None)
    if call is None or call.kind != planned.kind:
        yield f"call {planned.number} was {call and call.kind}; expected {planned.kind}, as in the reference study"
    if ending.hung:
        yield f"the process was killed because it did not exit in time:\n{tail(output)}"
    elif fault is Fault.KILL:
        if ending.code is not None:
            yield f"the process exited with {ending.code}; expected SIGKILL (signal 9)"
    elif ending.code not in (0, 2) or "Traceback" in output or "unexpected" in output:
        yield f"the process exited with {ending.code}; expected 0 or 2 and no unexpected error:\n{tail(output)}"
    elif ending.code == 2:
        errors = [line for line in output.splitlines() if line.startswith("error: ")]
        if len(errors) != 1 or str(folder) not in errors[0] or not re.search(_REASONS[fault], errors[0]):
            yield f"the output does not name the path and the reason in exactly one error message:\n{tail(output)}"


def _run_main(command: list[str]) -> int:
    from tuner.__main__ import main

    return main(command)
