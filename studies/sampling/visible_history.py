"""The visible history of a search trial: the finished trials from which it is sampled and against which it is pruned.

With the parallelism P, trial n sees the trials numbered n - P and below. The trial is not started before all of them
have finished, and nothing else influences it. So a study is the same for any number of workers, in any timing.
"""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from studies.trials.record import TrialRecord, trials_and_records


def visible_trials(study: optuna.Study, number: int, parallelism: int) -> list[tuple[FrozenTrial, TrialRecord]]:
    """Return the visible history of a search trial: trials with their records, in order of trial number.

    Failed trials are left out; a diverged search trial has the state pruned.

    Args:
        study: The study; it is only read.
        number: The number of the search trial.
        parallelism: The study's parallelism, 1 or more.
    """
    return [
        (trial, record)
        for trial, record in trials_and_records(study)
        if trial.number <= number - parallelism and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
