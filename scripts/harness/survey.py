"""How far a study has come between two of its processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.fixture_study import open_study
from harness.processes import in_fork


@dataclass(frozen=True)
class Survey:
    """What the study says.

    Attributes:
        trials: Trials that it has.
        ended: Those that have ended.
        is_running: Whether a trial was left running.
        deaths: How many deaths in a row, without getting on, the next process will count on a running trial; of all
            running ones the most.
        is_trained: Whether a trial was left running that has no epoch left to train, so that a death or two more do
            not change how it is trained.
    """

    trials: int = 0
    ended: int = 0
    is_running: bool = False
    deaths: int = 0
    is_trained: bool = False

    @property
    def is_at_the_limit(self) -> bool:
        """Whether the program trains a trial in smaller passes, to other bits, if one more process dies at it."""
        from studies import CRASHES_BEFORE_SMALLER_PASSES

        return self.deaths >= CRASHES_BEFORE_SMALLER_PASSES - 1


def survey(folder: Path) -> Survey:
    """Return how far the study in a folder has come."""
    return in_fork(_survey, folder)


def _survey(folder: Path) -> Survey:
    from search_spaces import ConfigurationError

    try:
        study = open_study(folder)
    except ConfigurationError:  # it has not begun
        return Survey()
    trials = study.get_trials(deepcopy=False)
    ended = sum(trial.state.is_finished() for trial in trials)
    running = [trial for trial in trials if trial.state.name == "RUNNING"]
    deaths = max(map(_deaths, running), default=0)
    return Survey(len(trials), ended, bool(running), deaths, is_trained=any(map(_is_trained, running)))


def _deaths(trial: Any) -> int:
    """Return how many deaths in a row, without getting on, the next process will count on a running trial."""
    from studies import read_record

    record = read_record(trial)
    got_on = record.attempts[-1].epochs != len(trial.intermediate_values)
    return 1 if got_on else record.consecutive_crashes + 1


def _is_trained(trial: Any) -> bool:
    """Return whether a running trial lacks nothing but being told; one that is pruned could be trained further."""
    from studies import WhyEnded

    return trial.user_attrs.get("outcome", {}).get("why_ended") in (WhyEnded.MAX_EPOCHS, WhyEnded.EARLY_STOPPED)
