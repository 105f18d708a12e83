"""How far a study has come between two of its processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from killing.processes import in_fork
from killing.small_study import OUTPUT


@dataclass(frozen=True)
class Survey:
    """What the study says.

    Attributes:
        trials: Trials that it has.
        ended: Those that have ended.
        deaths: Processes that died on the running trial, one after the other, without getting it on.
        is_running: Whether a trial was left running.
    """

    trials: int = 0
    ended: int = 0
    deaths: int = 0
    is_running: bool = False


def survey(folder: Path) -> Survey:
    """Return how far the study in a folder has come."""
    return in_fork(_survey, folder)


def _survey(folder: Path) -> Survey:
    from search_spaces import ConfigurationError
    from studies import load_study

    try:
        study, _ = load_study(folder / OUTPUT)
    except ConfigurationError:  # it has not begun
        return Survey()
    trials = study.get_trials(deepcopy=False)
    running = [trial for trial in trials if trial.state.name == "RUNNING"]
    ended = sum(trial.state.is_finished() for trial in trials)
    return Survey(len(trials), ended, max(map(_deaths, running), default=0), bool(running))


def _deaths(trial: object) -> int:
    """Return the deaths that the next process will count on a running trial."""
    from optuna.trial import FrozenTrial

    from studies import read_record

    assert isinstance(trial, FrozenTrial)
    record = read_record(trial)
    attempts: Sequence[object] = record.attempts
    if not attempts:  # one died between the claim and its first note
        return 1
    got_on = record.attempts[-1].epochs != len(trial.intermediate_values)
    return 0 if got_on else record.deaths_in_a_row + 1
