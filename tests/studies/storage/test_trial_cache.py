"""The cache of trials: the same trials as Optuna's own, for less."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces import TrainingConfig
from studies import (
    OutputFolder,
    SearchRequest,
    TrialOutcome,
    WhyEnded,
    add_search_trials,
    claim_next,
    count_unclaimed,
    load_study,
)
from studies.sampling.pruning import value_to_keep_up_with
from studies.storage import trial_cache
from studies.storage.optuna_private import rdb_storage

Start = Callable[..., tuple[optuna.Study, OutputFolder]]

TRIALS = {
    "complete": create_trial(
        value=0.25,
        params={"rate": 1e-3, "size": 32, "model": "small", "flag": None},
        distributions={
            "rate": FloatDistribution(1e-4, 1e-1, log=True),
            "size": IntDistribution(16, 128, step=16),
            "model": CategoricalDistribution(("small", "large")),
            "flag": CategoricalDistribution((None, True, 3, "ខ្មែរ")),
        },
        user_attrs={"text": "ខ្មែរ", "nested": {"list": [1, 2.5, None]}},
        system_attrs={"note": "x"},
        intermediate_values={2: 0.5, 1: 0.75},
    ),
    "not numbers": create_trial(
        value=-math.inf, intermediate_values={1: math.inf, 2: -math.inf}, user_attrs={"empty": {}}
    ),
    "without figures": create_trial(state=TrialState.FAIL),
    "pruned": create_trial(state=TrialState.PRUNED, value=0.5, intermediate_values={1: 0.5}),
    "running": create_trial(state=TrialState.RUNNING, user_attrs={"begun": 1}),
    "waiting": create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"rate": 0.01}}),
}


def read_by_optuna(study: optuna.Study) -> list[FrozenTrial]:
    return rdb_storage(study).get_all_trials(study._study_id)


@pytest.mark.parametrize("at_once", [1, 4, 500])
@pytest.mark.parametrize("names", [(), ("waiting",), ("complete",), tuple(TRIALS), (*TRIALS, *reversed(TRIALS))])
def test_trials_are_those_that_optuna_reads(
    names: Sequence[str], at_once: int, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_cache, "_MOST_AT_ONCE", at_once)
    study, folder = start()
    study.add_trials([TRIALS[name] for name in names])
    reader, _ = load_study(folder.path)
    trials = reader.get_trials(deepcopy=False)
    assert trials == read_by_optuna(study)
    assert [list(trial.params) for trial in trials] == [list(trial.params) for trial in read_by_optuna(study)]
    assert reader.get_trials(deepcopy=False) == trials
    # The copy is the caller's own, as Optuna promises.
    assert reader.get_trials() == trials
    assert all(copy is not trial for copy, trial in zip(reader.get_trials(), trials, strict=True))


def test_what_is_no_number_is_read_as_optuna_reads_it(start: Start) -> None:
    study, _ = start()
    study.add_trial(create_trial(value=1.0, intermediate_values={1: math.nan}))
    (trial,) = study.get_trials(deepcopy=False)
    assert math.isnan(trial.intermediate_values[1])


def test_a_study_that_was_deleted_is_no_longer_there(start: Start, presets: dict[str, TrainingConfig]) -> None:
    study, folder = start(presets)
    reader, _ = load_study(folder.path)
    assert len(reader.get_trials(deepcopy=False)) == 3
    optuna.delete_study(study_name=study.study_name, storage=rdb_storage(study))
    with pytest.raises(KeyError):
        reader.get_trials(deepcopy=False)


@pytest.mark.sqlite
def test_a_study_made_anew_in_the_place_of_a_deleted_one_is_read_anew(start: Start) -> None:
    study, _ = start()
    storage, places = study._storage, set()
    optuna.delete_study(study_name=study.study_name, storage=storage)
    for text in ("old", "new"):
        again = optuna.create_study(study_name=text, storage=storage)
        # Past the cache, as another process does.
        waiting = create_trial(state=TrialState.WAITING, user_attrs={"text": text})
        rdb_storage(study).create_new_trial(again._study_id, waiting)
        (trial,) = again.get_trials(deepcopy=False)
        assert trial.user_attrs == {"text": text}
        places.add((again._study_id, trial._trial_id))
        optuna.delete_study(study_name=text, storage=storage)
    assert len(places) == 1  # SQLite numbers what is made next like what was deleted last


def test_every_change_by_another_process_is_seen(
    start: Start, presets: dict[str, TrainingConfig], outcome: TrialOutcome
) -> None:
    worker, folder = start(presets)
    reader, _ = load_study(folder.path)

    def seen() -> list[FrozenTrial]:
        trials = reader.get_trials(deepcopy=False)
        assert trials == read_by_optuna(worker)
        return trials

    assert [trial.state.name for trial in seen()] == ["WAITING"] * 3
    # A later one first, so that an ended trial comes after waiting and running ones.
    for name, step in (("high_rate", 1), ("conservative_small", 2)):
        claim = claim_next(worker, folder, lambda record, name=name: record.experiment_name == name)
        assert claim is not None
        assert seen()[claim.record.number].user_attrs["attempts"]
        claim.trial.report(0.5, step)
        claim.trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        assert seen()[claim.record.number].intermediate_values == {step: 0.5}
        claim.finish(replace(outcome, why_ended=WhyEnded.PRUNED))
        assert seen()[claim.record.number].state == TrialState.PRUNED
    add_search_trials(worker, folder, SearchRequest(at_least=2))
    assert [trial.state.name for trial in seen()] == ["PRUNED", "WAITING", "PRUNED", "WAITING", "WAITING"]
    held = claim_next(worker, folder)
    assert held is not None
    add_search_trials(worker, folder, SearchRequest(more=1))
    assert [trial.state.name for trial in seen()] == ["PRUNED", "RUNNING", "PRUNED", "WAITING", "WAITING", "WAITING"]
    held.finish(outcome, 0.5)
    assert [trial.state.name for trial in seen()] == ["PRUNED", "COMPLETE", "PRUNED", "WAITING", "WAITING", "WAITING"]


def test_a_trial_that_was_put_back_by_hand_is_read_again(start: Start, presets: dict[str, TrainingConfig]) -> None:
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert claim is not None
    assert study.get_trials(deepcopy=False)[0].state == TrialState.RUNNING
    study._storage.set_trial_state_values(claim.trial._trial_id, TrialState.WAITING)
    assert study.get_trials(deepcopy=False) == read_by_optuna(study)
    assert study.get_trials(deepcopy=False)[0].state == TrialState.WAITING
    claim.release()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The trials that are read from the database from now on, one after the other."""
    read: list[int] = []
    original = trial_cache.read_trials

    def counted(storage: RDBStorage, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        read.extend(trial_ids)
        return original(storage, trial_ids)

    monkeypatch.setattr(trial_cache, "read_trials", counted)
    return read


def test_nothing_is_read_again_while_nothing_changes(start: Start, reads: list[int]) -> None:
    study, folder = start()
    study.add_trials([TRIALS[name] for name in TRIALS if name != "running"])
    reader, _ = load_study(folder.path)
    reader.get_trials(deepcopy=False)
    assert len(reads) == len(TRIALS) - 1
    del reads[:]
    for _ in range(3):
        reader.get_trials(deepcopy=False)
    assert reads == []
    # What runs changes all the time.
    study.add_trial(TRIALS["running"])
    for _ in range(3):
        reader.get_trials(deepcopy=False)
    assert len(reads) == 3


@pytest.mark.parametrize("waiting", [10, 60])
def test_what_one_trial_takes_to_read_does_not_grow_with_those_that_wait(
    waiting: int, start: Start, outcome: TrialOutcome, reads: list[int]
) -> None:
    study, folder = start({f"preset {n}": TrainingConfig(seed=n) for n in range(waiting)})
    assert count_unclaimed(study, folder) == waiting
    del reads[:]
    claim = claim_next(study, folder)
    assert claim is not None
    for epoch in (1, 2):
        claim.trial.report(0.5, epoch)
        value_to_keep_up_with(study, claim.record.number, epoch, 0.6)
    claim.finish(outcome, 0.5)
    assert count_unclaimed(study, folder) == waiting - 1
    # The trial itself, while it runs.
    assert set(reads) == {claim.trial._trial_id}
    assert len(reads) <= 6
