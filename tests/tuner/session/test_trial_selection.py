import time
from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces import TrainingConfig, load_experiments
from studies import (
    SamplerName,
    SearchRequest,
    add_search_trials,
    load_study_for_changes,
    request_stop,
    study_space,
    suggest_all,
)
from studies.study.claiming import prepare_sampling
from tuner.display.events import Display
from tuner.session.run_options import RunOptions, StopConditions, TrialFilter
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.session.study_setup import ExistingStudy
from tuner.session.trial_selection import held_back, may_start, next_claim, should_interrupt, trials_to_start

OUT = Path("training_output")

pytestmark = pytest.mark.usefixtures("in_tmp")


@pytest.fixture
def open_session(write_config, write_space):
    """Return a function that opens the study with the presets `one` and `two`."""
    file = load_experiments(write_config({"one": {}, "two": {}}))
    space = str(write_space())

    def open_it(search=None, output_dir=OUT):
        options = RunOptions(output_dir, space_file=space, search=search or SearchRequest())
        return Session.open(RunRequest.from_file(file, options=options), Display())

    return open_it


def request_study_stop():
    request_stop(load_study_for_changes(OUT)[0])


def test_stop_request_applies_only_to_earlier_sessions(open_session):
    early = open_session()
    assert not should_interrupt(early, StopConditions())
    request_study_stop()
    late = open_session()
    assert (should_interrupt(early, StopConditions()), should_interrupt(late, StopConditions())) == (True, False)
    assert next_claim(early, TrialFilter(), StopConditions()) is None
    assert may_start(late, StopConditions())
    request_study_stop()
    assert should_interrupt(late, StopConditions())
    # The request also applies to a worker process that an earlier session starts later.
    existing = ExistingStudy.load(OUT)
    child = Session.reopen(replace(existing, stop_token=early.stop_token), Display())
    assert should_interrupt(child, StopConditions())
    assert not should_interrupt(Session.reopen(existing, Display()), StopConditions())


def test_no_trial_starts_after_the_deadline(open_session):
    session = open_session()
    timed_out = StopConditions(deadline=time.monotonic())
    assert should_interrupt(session, timed_out)
    assert next_claim(session, TrialFilter(), timed_out) is None
    assert may_start(session, StopConditions(until_targets=True))  # no trial has met them


def sampled_params(session):
    """Claim the first search trial, and return its sampled parameters."""
    claim = next_claim(session, TrialFilter(frozenset()), StopConditions())
    assert claim is not None
    with claim:
        suggest_all(claim.trial, study_space(session.study), TrainingConfig())
        return claim.trial.params


def test_search_added_later_samples_the_same_parameters(open_session):
    expected = sampled_params(
        open_session(SearchRequest(sampler=SamplerName.RANDOM, parallelism=3, at_least=1), Path("from_the_start"))
    )
    session = open_session()
    assert next_claim(session, TrialFilter(frozenset()), StopConditions()) is None
    study, folder = load_study_for_changes(OUT)
    add_search_trials(study, folder, SearchRequest(sampler=SamplerName.RANDOM, parallelism=3, more=1))
    assert sampled_params(session) == expected
    assert set(expected) >= {"learning_rate", "batch_size"}


def test_search_added_during_a_claim_is_not_missed(open_session, monkeypatch):
    expected = sampled_params(
        open_session(SearchRequest(sampler=SamplerName.RANDOM, parallelism=3, at_least=1), Path("from_the_start"))
    )
    session = open_session()

    def add_search_after_preparation(study):
        monkeypatch.setattr("studies.study.claiming.prepare_sampling", prepare_sampling)
        parallelism = prepare_sampling(study)
        writable, folder = load_study_for_changes(OUT)
        add_search_trials(writable, folder, SearchRequest(sampler=SamplerName.RANDOM, parallelism=3, more=1))
        return parallelism

    monkeypatch.setattr("studies.study.claiming.prepare_sampling", add_search_after_preparation)
    assert sampled_params(session) == expected


def test_matching_trials_without_a_worker_are_counted(open_session, monkeypatch):
    monkeypatch.setattr("studies.study.search_budget.MOST_WAITING", 2)
    session = open_session(SearchRequest(at_least=5, parallelism=7))
    assert trials_to_start(session, TrialFilter()) == 2 + 5
    assert trials_to_start(session, TrialFilter(frozenset({"one"}), search=False)) == 1
    first, second = (next_claim(session, TrialFilter(), StopConditions()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert trials_to_start(session, TrialFilter()) == 5
    first.release()
    assert trials_to_start(session, TrialFilter()) == 1 + 5
    second.release()


def test_search_trials_are_held_back_only_for_commands_that_train_them(open_session, monkeypatch):
    monkeypatch.setattr("studies.study.search_budget.MOST_WAITING", 1)  # the others are not enqueued yet
    session = open_session(SearchRequest(at_least=5))
    assert held_back(session, TrialFilter(search=False)) is None
    held = held_back(session, TrialFilter(frozenset()))
    assert held is not None
    assert (held.name, held.awaited, held.is_blocked) == ("search_0002", "one", True)
