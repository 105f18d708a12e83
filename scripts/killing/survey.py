"""How far a study has come between two of its processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from killing.processes import in_fork
from killing.small_study import OUTPUT


@dataclass(frozen=True)
class Survey:
    """What the study says.

    Attributes:
        trials: Trials that it has.
        ended: Those that have ended.
        is_running: Whether a trial was left running.
        is_at_the_limit: Whether the program trains that trial in smaller passes, to other bits, if one more process
            dies without getting it on.
    """

    trials: int = 0
    ended: int = 0
    is_running: bool = False
    is_at_the_limit: bool = False


def survey(folder: Path) -> Survey:
    """Return how far the study in a folder has come."""
    return in_fork(_survey, folder)


def _survey(folder: Path) -> Survey:
    from search_spaces import ConfigurationError
    from studies import DEATHS_TO_BE_CAREFUL, load_study

    try:
        study, _ = load_study(folder / OUTPUT)
    except ConfigurationError:  # it has not begun
        return Survey()
    trials = study.get_trials(deepcopy=False)
    ended = sum(trial.state.is_finished() for trial in trials)
    running = [trial for trial in trials if trial.state.name == "RUNNING"]
    return Survey(
        len(trials), ended, bool(running), any(_deaths(trial) == DEATHS_TO_BE_CAREFUL - 1 for trial in running)
    )


def _deaths(trial: Any) -> int:
    """Return how many deaths in a row, without getting on, the next process will count on a running trial."""
    from studies import read_record

    record = read_record(trial)
    if not record.attempts:  # one died between the claim and its first note
        return 1
    got_on = record.attempts[-1].epochs != len(trial.intermediate_values)
    return 1 if got_on else record.deaths_in_a_row + 1
