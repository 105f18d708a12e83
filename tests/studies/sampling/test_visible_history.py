"""The visible history of a search trial."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from studies.sampling.visible_history import visible_trials

SEARCH = {"kind": "search"}


@pytest.fixture(scope="module")
def study():
    """Create a study whose trial 2 failed, 4 is running, 5 is waiting and 6 belongs to another program."""
    study = optuna.create_study()
    complete, pruned, failed = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
    states = [complete, pruned, failed, complete, TrialState.RUNNING, TrialState.WAITING, complete, pruned]
    for number, state in enumerate(states):
        attributes = {"kind": "preset", "experiment_name": "one"} if number == 0 else SEARCH if number != 6 else {}
        value = 0.5 if state == complete else None
        study.add_trial(create_trial(state=state, value=value, user_attrs=attributes))
    return study


@pytest.mark.parametrize(
    ("number", "parallelism", "visible"),
    [
        (0, 1, []),
        (1, 1, [0]),
        (3, 1, [0, 1]),
        (4, 1, [0, 1, 3]),
        (4, 2, [0, 1]),
        (4, 4, [0]),
        (4, 5, []),
        (8, 1, [0, 1, 3, 7]),
        (8, 2, [0, 1, 3]),
        (100, 90, [0, 1, 3, 7]),
    ],
)
def test_visible_are_the_finished_trials_of_this_program_up_to_the_window(study, number, parallelism, visible):
    found = visible_trials(study, number, parallelism)
    assert [trial.number for trial, _ in found] == [record.number for _, record in found] == visible
