"""The record of a trial is parsed once, until the trial changes."""

import pytest

import studies
from search_spaces import TrainingConfig
from studies.study.search_budget import top_up
from studies.trials import record as study_records
from studies.trials.claims import claim_next, count_unclaimed
from studies.trials.record import read_record, trials_and_records


@pytest.fixture
def parsed(monkeypatch):
    """The numbers of the trials whose records are parsed during the test, in order."""
    numbers = []

    def counted(trial):
        numbers.append(trial.number)
        return read_record(trial)

    monkeypatch.setattr(study_records, "read_record", counted)
    return numbers


def test_records_are_updated_when_trials_change(start, presets, outcome):
    study, folder = start(presets)
    study.enqueue_trial({"x": 1.0})  # not by this package

    def phases():
        assert all(read_record(trial) == record for trial, record in trials_and_records(study))
        assert [record.number for record in studies.own_records(study)] == [0, 1, 2]
        return [record.phase for record in studies.own_records(study)]

    assert phases() == ["waiting"] * 3
    claim = claim_next(study, folder)
    assert phases() == ["running", "waiting", "waiting"]
    assert studies.own_records(study)[0].attempts == claim.record.attempts
    claim.finish(outcome, 0.5)
    assert phases() == ["completed", "waiting", "waiting"]
    assert studies.own_records(study)[0].outcome == outcome


def test_records_of_two_studies_are_separate(start, presets):
    study, folder = start(presets)
    other, _ = start({"another": TrainingConfig()}, path=folder.path.with_name("other"))
    for _ in range(2):
        assert [record.experiment_name for record in studies.own_records(other)] == ["another"]
        assert [record.experiment_name for record in studies.own_records(study)] == list(presets)


@pytest.mark.parametrize("trials", [6, 30])
def test_only_records_of_changed_trials_are_parsed_again(trials, start, outcome, parsed):
    study, folder = start({f"preset {n}": TrainingConfig(seed=n) for n in range(trials)})
    for _ in range(trials // 2):
        finish_next(study, folder, outcome)
    count_unclaimed(study, folder)
    del parsed[:]
    number = finish_next(study, folder, outcome)
    for read in (studies.latest_records, studies.ended_records, studies.records_beyond_retention):
        read(study)
    top_up(study, folder)
    studies.study_status(study, folder)
    studies.trial_rows(study, folder)
    # Only the changed trial, once for each of its changes.
    assert set(parsed) == {number}
    assert len(parsed) <= 3


def finish_next(study, folder, outcome):
    claim = claim_next(study, folder)
    claim.trial.report(0.5, 1)
    claim.finish(outcome, 0.5)
    return claim.record.number
