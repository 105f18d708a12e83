"""What this package uses of Optuna that is not public: a new Optuna that changes it fails here, by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search_spaces import TrainingConfig
from studies import OutputFolder, load_study
from studies.optuna_internals import continue_trial, rdb_storage, set_running_if_waiting

Start = Callable[..., tuple[optuna.Study, OutputFolder]]


def test_only_the_first_of_two_swaps_succeeds_and_optuna_sees_it(start: Start) -> None:
    study, folder = start({"one": TrainingConfig()})
    other, _ = load_study(folder.path)
    waiting = study.get_trials()[0]
    begun = datetime.now()
    assert set_running_if_waiting(study, waiting)
    assert not set_running_if_waiting(study, waiting)
    for view in (study, other):
        trial = view.get_trials()[0]
        assert trial.state == TrialState.RUNNING
        assert trial.datetime_start is not None
        assert abs((trial.datetime_start - begun).total_seconds()) < 60


def test_a_running_trial_goes_on_under_its_number(start: Start) -> None:
    study, _ = start({"one": TrainingConfig(), "two": TrainingConfig()})
    set_running_if_waiting(study, study.get_trials()[1])
    first = continue_trial(study, study.get_trials()[1])
    assert first.suggest_float("learning_rate", 1e-4, 1.0, log=True) == 0.001
    first.report(0.25, step=1)

    fresh, _ = start()
    second = continue_trial(fresh, fresh.get_trials()[1])
    assert second.number == 1
    assert second.params == {"learning_rate": 0.001}
    second.suggest_int("batch_size", 16, 128, step=16)
    second.report(0.5, step=2)
    fresh.tell(second, 0.5)
    ended = study.get_trials()[1]
    assert (ended.state, ended.value, ended.intermediate_values) == (
        TrialState.COMPLETE,
        0.5,
        {1: 0.25, 2: 0.5},
    )


def test_the_database_is_behind_the_study(start: Start) -> None:
    study, _ = start()
    assert isinstance(rdb_storage(study), RDBStorage)
    with pytest.raises(TypeError, match="kept in a database, but got InMemoryStorage"):
        rdb_storage(optuna.create_study())
