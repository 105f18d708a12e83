"""The progress of a study after one of its processes has exited, and the problems of that process."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.fixture_study import OUTPUT, open_study
from harness.forks import in_fork
from harness.processes import tail

# Allowed exit codes of a command that may find nothing to train or may refuse to train.
REFUSALS = frozenset({0, 1, 2})


@dataclass(frozen=True)
class Survey:
    """The progress of a study.

    Attributes:
        trials: Number of trials.
        finished: Number of finished trials.
        crashes: Number of consecutive crashes, without a finished epoch between them, that the next process will count
            for a running trial; the maximum over all running trials.
        is_interrupted: Whether a trial is marked as running although no process is training it.
        interrupted_crashes: As `crashes`, but the maximum over these trials only.
    """

    trials: int = 0
    finished: int = 0
    crashes: int = 0
    is_interrupted: bool = False
    interrupted_crashes: int = 0

    def problems_after(self, before: Survey, planned: int) -> Iterator[str]:
        """Compare with an earlier survey; yield a problem for lost trials and for more than `planned` trials."""
        if self.trials < before.trials or self.finished < before.finished:
            yield f"lost trials: found {self}; expected at least {before}"
        if self.trials > planned:
            yield f"created too many trials: found {self.trials}; expected at most {planned}"


def exit_problems(
    code: int | None,
    output: str,
    *,
    hung: bool,
    is_complete: bool,
    expected: Collection[int | None],
    may_be_incomplete: bool,
) -> Iterator[str]:
    """Check a training command that has exited; yield its problems, as predicates without the command's name.

    Args:
        code: Exit code of the command; None if the command was killed by SIGKILL.
        output: Output of the command.
        hung: Whether the harness killed the command because it did not exit in time.
        is_complete: Whether all planned trials are finished.
        expected: Allowed exit codes.
        may_be_incomplete: Whether the command may exit with 0 before all trials are finished.
    """
    if hung:
        yield f"was killed because it did not exit in time:\n{tail(output)}"
    elif code not in expected:
        allowed = " or ".join(sorted("SIGKILL" if one is None else str(one) for one in expected))
        yield f"exited with {code}; expected {allowed}:\n{tail(output)}"
    elif code == 0 and not is_complete and not may_be_incomplete:
        yield f"exited with 0 although the study is incomplete:\n{tail(output)}"
    if "Traceback" in output or "unexpected" in output:
        yield f"printed an unexpected error:\n{tail(output)}"


def survey(folder: Path) -> Survey:
    """Read the progress of the study in a folder; without a study, all numbers are 0."""
    return in_fork(_survey, folder)


def next_crash_count(trial: Any) -> int:
    """Return the number of consecutive crashes that the next process to take over a running trial will count."""
    from studies import read_record

    record = read_record(trial)
    has_progressed = record.attempts[-1].epochs != len(trial.intermediate_values)
    return 1 if has_progressed else record.consecutive_crashes + 1


def _survey(folder: Path) -> Survey:
    from search_spaces import ConfigurationError
    from studies import OutputFolder, study_status

    try:
        study = open_study(folder)
    except ConfigurationError:  # the study has not been created
        return Survey()
    trials = study.get_trials(deepcopy=False)
    finished = sum(trial.state.is_finished() for trial in trials)
    crashes = {trial.number: next_crash_count(trial) for trial in trials if trial.state.name == "RUNNING"}
    rows = study_status(study, OutputFolder(folder / OUTPUT)).rows
    interrupted = [crashes.get(row.number, 0) for row in rows if row.state == "interrupted"]
    most_crashes, most_interrupted = max(crashes.values(), default=0), max(interrupted, default=0)
    return Survey(len(trials), finished, most_crashes, bool(interrupted), most_interrupted)
