"""The parallelism of a search: which trials may start, and for which trial a worker waits."""

from dataclasses import replace

import pytest

import studies
from search_spaces import ConfigurationError, TrainingConfig

Presets = dict[str, TrainingConfig]


def is_search(record):
    return record.kind is studies.TrialKind.SEARCH


def every(record):
    return True


def start_search(start, presets, parallelism, trials):
    study, folder = start(presets)
    studies.add_search_trials(study, folder, studies.SearchRequest(parallelism=parallelism, at_least=trials))
    return study, folder


def claim_all(study, folder):
    """Claim trials, as workers would, until no trial can be claimed."""
    claims = []
    while (claim := studies.claim_next_trial(study, folder)) is not None:
        claims.append(claim)
    return claims


@pytest.mark.parametrize(
    ("parallelism", "claimed"), [(1, [0, 1, 2]), (2, [0, 1, 2]), (4, [0, 1, 2, 3]), (6, [0, 1, 2, 3, 4, 5])]
)
def test_search_trial_starts_only_after_the_trials_that_it_sees(parallelism, claimed, start, presets):
    study, folder = start_search(start, presets, parallelism, trials=5)
    # Presets are never held back; search trials are numbered from 3.
    assert [claim.record.number for claim in claim_all(study, folder)] == claimed


def test_each_finished_trial_lets_the_search_trial_p_numbers_later_start(start, presets, outcome):
    study, folder = start_search(start, presets, parallelism=4, trials=6)
    claims = {claim.record.number: claim for claim in claim_all(study, folder)}
    started = []
    for finished in (1, 0, 3, 2):
        claims[finished].finish(outcome, 0.5)
        new = claim_all(study, folder)
        started.append([claim.record.number for claim in new])
        claims |= {claim.record.number: claim for claim in new}
    # Trial 4 waits for trial 0, although trial 1 has finished; then trial 5 may start as well. Trial 6 waits for 2.
    assert started == [[], [4, 5], [], [6, 7]]


def test_failed_trials_count_as_finished_and_their_retries_by_their_own_number(start, presets, outcome):
    study, folder = start_search(start, presets, parallelism=1, trials=2)
    for _ in presets:
        claim = studies.claim_next_trial(study, folder)
        claim.finish(replace(outcome, why_ended=studies.WhyEnded.FAILED))
    claim = studies.claim_next_trial(study, folder)
    assert claim.record.number == 3
    claim.finish(outcome, 0.5)
    assert len(studies.retry_failed_trials(study, folder)) == len(presets)
    # The retries are trials 5 to 7, so search trial 4 does not wait for them.
    claim = studies.claim_next_trial(study, folder, is_search)
    assert claim.record.number == 4


def test_interrupted_search_trial_is_resumed_although_earlier_presets_were_added(start, presets):
    study, folder = start_search(start, {}, parallelism=1, trials=2)
    claim = studies.claim_next_trial(study, folder)
    claim.release()
    studies.enqueue_presets(study, folder, presets)
    again = studies.claim_next_trial(study, folder, is_search)
    assert (again.record.number, again.resumed) == (0, True)


class TestHeldBack:
    def test_worker_is_told_for_which_trial_the_search_waits(self, start, presets):
        study, folder = start_search(start, presets, parallelism=2, trials=3)
        claims = claim_all(study, folder)
        waiting = studies.HeldBack("search_0003", "conservative_small", is_blocked=False)
        assert studies.find_held_back(study, folder, every) == waiting
        for claim in claims:
            claim.release()
        assert studies.find_held_back(study, folder, every) == waiting  # the caller may train the preset itself

    def test_search_is_blocked_if_the_worker_may_not_train_the_trial_and_no_other_trains(self, start, presets, outcome):
        study, folder = start_search(start, presets, parallelism=1, trials=2)
        blocked = studies.HeldBack("search_0003", "conservative_small", is_blocked=True)
        assert studies.find_held_back(study, folder, is_search) == blocked
        claim = studies.claim_next_trial(study, folder)
        assert studies.find_held_back(study, folder, is_search) == replace(blocked, is_blocked=False)
        claim.finish(outcome, 0.5)
        assert studies.find_held_back(study, folder, is_search) == replace(blocked, awaited="baseline")

    def test_search_trials_that_are_not_enqueued_yet_are_held_back_too(self, start, outcome, monkeypatch):
        monkeypatch.setattr("studies.study.search_budget.MOST_WAITING", 1)
        study, folder = start_search(start, {}, parallelism=1, trials=3)
        claim = studies.claim_next_trial(study, folder)
        assert len(study.get_trials()) == 1
        assert studies.find_held_back(study, folder, every) == studies.HeldBack(
            "search_0001", "search_0000", is_blocked=False
        )
        claim.finish(outcome, 0.5)
        assert studies.find_held_back(study, folder, every) is None
        assert studies.count_claimable(study, folder, every, with_search=True) == 1

    def test_no_trial_is_held_back_without_pending_search_trials(self, start, presets):
        study, folder = start(presets)
        assert studies.find_held_back(study, folder, every) is None
        studies.add_search_trials(study, folder, studies.SearchRequest(at_least=1))
        assert studies.find_held_back(study, folder, lambda record: not is_search(record)) is None


@pytest.mark.parametrize(("parallelism", "counts"), [(1, [3, 2, 1, 0]), (4, [4, 3, 2, 1]), (9, [9, 8, 7, 6])])
def test_only_trials_that_may_start_are_counted(parallelism, counts, start, presets, monkeypatch):
    monkeypatch.setattr("studies.study.search_budget.MOST_WAITING", 2)  # the others are not enqueued yet
    study, folder = start_search(start, presets, parallelism, trials=20)
    found = [studies.count_claimable(study, folder, every, with_search=True)]
    for _ in presets:
        assert studies.claim_next_trial(study, folder) is not None
        found.append(studies.count_claimable(study, folder, every, with_search=True))
    assert found == counts


def test_trials_that_another_worker_adds_during_a_claim_do_not_widen_the_window(start, outcome, monkeypatch):
    study, folder = start_search(start, {}, parallelism=1, trials=1)
    other, _ = studies.load_study_for_changes(folder.path)
    claim = studies.claim_next_trial(study, folder)
    claim.finish(outcome, 0.5)
    claims = []

    def add_and_claim(study):
        monkeypatch.setattr("studies.study.claiming.own_records", studies.own_records)
        records = studies.own_records(study)
        assert [record.phase for record in records] == [studies.TrialPhase.COMPLETED]
        studies.add_search_trials(other, folder, studies.SearchRequest(more=3))
        claims.append(studies.claim_next_trial(other, folder))
        return records

    monkeypatch.setattr("studies.study.claiming.own_records", add_and_claim)
    assert studies.claim_next_trial(study, folder) is None
    assert [claim.record.number for claim in claims if claim is not None] == [1]


class TestParallelism:
    @pytest.mark.parametrize("parallelism", [0, -1])
    def test_invalid_parallelism_is_refused(self, parallelism):
        with pytest.raises(ConfigurationError, match="expected a whole number above 0"):
            studies.SearchRequest(parallelism=parallelism)

    @pytest.mark.parametrize(("requested", "default", "expected"), [(None, 4, 4), (3, 4, 3)])
    def test_requested_parallelism_takes_precedence_over_the_default(self, requested, default, expected, start):
        study, folder = start({})
        studies.add_search_trials(study, folder, studies.SearchRequest(parallelism=requested, at_least=1), default)
        settings = studies.search_settings(studies.load_study(folder.path)[0])
        assert settings.parallelism == expected

    def test_other_parallelism_is_refused_but_another_default_is_not(self, start):
        study, folder = start_search(start, {}, parallelism=4, trials=1)
        studies.add_search_trials(study, folder, studies.SearchRequest(more=1), default_parallelism=8)
        studies.require_same_search(study, studies.SearchRequest(parallelism=4))
        with pytest.raises(ConfigurationError, match="its search has parallelism 4, not 2; "):
            studies.require_same_search(study, studies.SearchRequest(parallelism=2))
