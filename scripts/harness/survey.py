"""The progress of a study between two of its processes, and what is wrong with how one of them ended."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.fixture_study import open_study
from harness.forks import in_fork
from harness.processes import tail

# Exit codes of a command that has nothing to do or refuses to do it.
REFUSALS = frozenset({0, 1, 2})


@dataclass(frozen=True)
class Survey:
    """The progress of a study.

    Attributes:
        trials: Number of its trials.
        ended: Number of those that have ended.
        is_running: Whether a trial was left running.
        deaths: How many deaths in a row, without an epoch between them, the next process will count on a running trial;
            of all running trials the most.
    """

    trials: int = 0
    ended: int = 0
    is_running: bool = False
    deaths: int = 0

    @property
    def is_at_the_limit(self) -> bool:
        """Whether the program gives a trial up if one more process dies at it."""
        from studies import MAX_CRASHES

        return self.deaths >= MAX_CRASHES - 1

    def problems_after(self, before: Survey, planned: int) -> Iterator[str]:
        """Yield what is wrong with the progress since an earlier survey, in a study of `planned` trials."""
        if self.trials < before.trials or self.ended < before.ended:
            yield f"lost trials: {before} became {self}"
        if self.trials > planned:
            yield f"left {self.trials} trials, more than the planned {planned}"


def exit_problems(
    code: int | None,
    output: str,
    *,
    hung: bool,
    is_complete: bool,
    expected: Collection[int | None],
    may_be_incomplete: bool,
) -> Iterator[str]:
    """Yield what is wrong with how a command that trains a study ended.

    Args:
        code: Its exit code.
        output: What it printed.
        hung: Whether it was killed because it did not exit.
        is_complete: Whether all planned trials have ended.
        expected: The exit codes that it may end with.
        may_be_incomplete: Whether it may end with 0 before all trials have ended.
    """
    if hung:
        yield f"hung:\n{tail(output)}"
    elif code not in expected:
        yield f"ended with {code}:\n{tail(output)}"
    elif code == 0 and not is_complete and not may_be_incomplete:
        yield f"ended and left the study incomplete:\n{tail(output)}"
    if "Traceback" in output or "unexpected" in output:
        yield f"printed an error that the program does not know:\n{tail(output)}"


def survey(folder: Path) -> Survey:
    """Return the progress of the study in a folder."""
    return in_fork(_survey, folder)


def _survey(folder: Path) -> Survey:
    from search_spaces import ConfigurationError

    try:
        study = open_study(folder)
    except ConfigurationError:  # it has not been created
        return Survey()
    trials = study.get_trials(deepcopy=False)
    ended = sum(trial.state.is_finished() for trial in trials)
    running = [trial for trial in trials if trial.state.name == "RUNNING"]
    deaths = max(map(_deaths, running), default=0)
    return Survey(len(trials), ended, bool(running), deaths)


def _deaths(trial: Any) -> int:
    from studies import read_record

    record = read_record(trial)
    has_progressed = record.attempts[-1].epochs != len(trial.intermediate_values)
    return 1 if has_progressed else record.consecutive_crashes + 1
