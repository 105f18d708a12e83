"""What is looked up quickly is what optuna-dashboard itself finds."""

from __future__ import annotations

from collections.abc import Callable, ItemsView
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest

from studies.dashboard import quick_lookup
from studies.dashboard.quick_lookup import serialize_trial


class Counted(dict[str, Any]):
    """A mapping that knows how often somebody went through all of it."""

    rounds = 0

    def items(self) -> ItemsView[str, Any]:
        self.rounds += 1
        return super().items()


@pytest.fixture
def study(tmp_path: Path, begin: Callable[..., optuna.Study]) -> optuna.Study:
    """Twelve trials with notes, some of several parts, and files of both kinds that optuna-dashboard knows."""
    study = begin(tmp_path / "out", trials=12)
    optuna_dashboard.save_note(study, "of the study")
    for trial in study.get_trials()[:-1]:
        handle = optuna.trial.Trial.__new__(optuna.trial.Trial)
        handle.study, handle.storage, handle._trial_id = study, study._storage, trial._trial_id
        optuna_dashboard.save_note(handle, f"of trial {trial.number} " * 40 * trial.number)
        study._storage.set_study_system_attr(
            study._study_id, f"dashboard:artifacts:{trial._trial_id}:0a", f'{{"artifact_id": "{trial.number}"}}'
        )
    return study


def test_every_trial_keeps_its_own(study: optuna.Study) -> None:
    attributes = Counted(study._storage.get_study_system_attrs(study._study_id))
    trials = study.get_trials()
    quick = [serialize_trial(1, trial, attributes) for trial in trials]
    assert attributes.rounds == 1
    assert quick == [quick_lookup._serialize(1, trial, attributes) for trial in trials]
    assert attributes.rounds > len(trials)
    assert quick[11]["note"] == {"version": 0, "body": ""}
    assert len(quick[10]["note"]["body"]) > 2 * 2045
    assert quick[10]["artifacts"] == [{"artifact_id": "10"}]


@pytest.mark.parametrize(
    ("attributes", "names"),
    [({"kind": "search"}, ["search_0012"]), ({"kind": "preset", "experiment_name": "one"}, ["one"]), ({}, [])],
)
def test_every_trial_of_this_program_has_its_name(
    study: optuna.Study, attributes: dict[str, str], names: list[str]
) -> None:
    study.add_trial(optuna.create_trial(value=0.5, user_attrs=attributes))
    found = serialize_trial(1, study.get_trials()[12], study._storage.get_study_system_attrs(study._study_id))
    assert [item["value"] for item in found["user_attrs"] if item["key"] == "experiment_name"] == names


def test_what_the_study_says_meanwhile_is_seen(study: optuna.Study) -> None:
    trial = study.get_trials()[3]
    before = serialize_trial(1, trial, study._storage.get_study_system_attrs(study._study_id))
    study._storage.set_study_system_attr(study._study_id, f"dashboard:{trial._trial_id}:note_str:0", "another")
    after = serialize_trial(1, trial, study._storage.get_study_system_attrs(study._study_id))
    assert before["note"]["body"] != after["note"]["body"] == "another"
