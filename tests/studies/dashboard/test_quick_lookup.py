"""The fast serializer returns the same data as optuna-dashboard's serializer."""

from typing import Any

import optuna
import optuna_dashboard
import pytest

from studies.dashboard import view
from studies.dashboard.view import serialize_trial


class CountingDict(dict[str, Any]):
    """A mapping that counts the iterations over all its items."""

    iterations = 0

    def items(self):
        self.iterations += 1
        return super().items()


@pytest.fixture
def study(tmp_path, create):
    """Twelve trials with notes, some of them split into several attributes, and with artifacts."""
    study = create(tmp_path / "out", trials=12)
    optuna_dashboard.save_note(study, "of the study")
    for trial in study.get_trials()[:-1]:
        handle = optuna.trial.Trial.__new__(optuna.trial.Trial)
        handle.study, handle.storage, handle._trial_id = study, study._storage, trial._trial_id
        optuna_dashboard.save_note(handle, f"of trial {trial.number} " * 40 * trial.number)
        study._storage.set_study_system_attr(
            study._study_id, f"dashboard:artifacts:{trial._trial_id}:0a", f'{{"artifact_id": "{trial.number}"}}'
        )
    return study


def test_every_trial_has_its_own_notes_and_artifacts(study):
    attributes = CountingDict(study._storage.get_study_system_attrs(study._study_id))
    trials = study.get_trials()
    quick = [serialize_trial(1, trial, attributes) for trial in trials]
    assert attributes.iterations == 1
    assert quick == [view._serialize(1, trial, attributes) for trial in trials]
    assert attributes.iterations > len(trials)
    assert quick[11]["note"] == {"version": 0, "body": ""}
    assert len(quick[10]["note"]["body"]) > 2 * 2045
    assert quick[10]["artifacts"] == [{"artifact_id": "10"}]


@pytest.mark.parametrize(
    ("attributes", "names"),
    [({"kind": "search"}, ["search_0012"]), ({"kind": "preset", "experiment_name": "one"}, ["one"]), ({}, [])],
)
def test_serialized_trial_has_its_name(study, attributes, names):
    study.add_trial(optuna.create_trial(value=0.5, user_attrs=attributes))
    serialized = serialize_trial(1, study.get_trials()[12], study._storage.get_study_system_attrs(study._study_id))
    assert [item["value"] for item in serialized["user_attrs"] if item["key"] == "experiment_name"] == names


def test_changed_attributes_are_read_again(study):
    trial = study.get_trials()[3]
    before = serialize_trial(1, trial, study._storage.get_study_system_attrs(study._study_id))
    study._storage.set_study_system_attr(study._study_id, f"dashboard:{trial._trial_id}:note_str:0", "another")
    after = serialize_trial(1, trial, study._storage.get_study_system_attrs(study._study_id))
    assert before["note"]["body"] != after["note"]["body"] == "another"
