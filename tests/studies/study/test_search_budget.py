from dataclasses import replace

import pytest

from search_spaces import ConfigurationError, SearchSpace, TrainingConfig
from studies import (
    PrunerName,
    SamplerName,
    SearchRequest,
    TrialKind,
    add_search_trials,
    check_search,
    claim_next_trial,
    count_unenqueued,
    enqueue_presets,
    load_study,
    load_study_for_changes,
    read_record,
    search_budget,
    search_settings,
    study_status,
)
from studies.sampling.pruning import Pruning
from studies.study.claiming import prepare_sampling
from studies.study.search_budget import top_up
from studies.trials.claims import claim_next


def numbers(study):
    """Return the numbers of the search trials."""
    return [trial.number for trial in study.get_trials() if trial.user_attrs["kind"] == TrialKind.SEARCH]


def finish_next(study, folder, outcome):
    claim = claim_next(study, folder)
    if claim is None:
        return None
    claim.finish(outcome, 0.5)
    return claim.record.number


class TestSettings:
    def test_study_has_no_search_before_the_first_request(self, start, presets):
        study, folder = start(presets)
        assert search_settings(study) is None
        assert (search_budget(study), top_up(study, folder)) == (0, False)
        assert not prepare_sampling(study)
        assert numbers(study) == []

    @pytest.mark.parametrize(
        ("request_", "sampler", "pruning"),
        [
            (SearchRequest(), SamplerName.TPE, Pruning(PrunerName.QUANTILE, 0.6, None)),
            (SearchRequest(sampler=SamplerName.RANDOM), SamplerName.RANDOM, Pruning()),
            # The GP sampler does not learn from pruned trials.
            (SearchRequest(sampler=SamplerName.GP), SamplerName.GP, Pruning(PrunerName.NONE)),
            (SearchRequest(pruner=PrunerName.HYPERBAND), SamplerName.TPE, Pruning(PrunerName.HYPERBAND)),
            (SearchRequest(prune_share=0.25, prune_grace=3), SamplerName.TPE, Pruning(prune_share=0.25, prune_grace=3)),
        ],
    )
    def test_first_request_fixes_the_search_settings(self, request_, sampler, pruning, start, presets):
        study, folder = start(presets)
        add_search_trials(study, folder, request_)
        add_search_trials(study, folder, SearchRequest(more=1))
        # A repeated request is accepted.
        add_search_trials(study, folder, request_)
        for view in (study, load_study(folder.path)[0]):
            settings = search_settings(view)
            assert (settings.sampler, settings.pruning) == (sampler, pruning)

    def test_different_settings_are_refused_and_nothing_is_added(self, start, presets):
        study, folder = start(presets)
        add_search_trials(study, folder, SearchRequest(at_least=2))
        different = SearchRequest(SamplerName.GP, PrunerName.NONE, prune_share=0.25, prune_grace=3, more=5)
        with pytest.raises(ConfigurationError) as caught:
            add_search_trials(study, folder, different)
        remedy = (
            "; all search trials of a study share this setting; remove the option, "
            "or start a new study with another --output-dir"
        )
        assert caught.value.problems == tuple(
            f"study 'khmer-ocr': its search has {difference}{remedy}"
            for difference in (
                "sampler tpe, not gp",
                "pruner quantile, not none",
                "prune_share 0.6, not 0.25",
                "prune_grace unset, not 3",
            )
        )
        assert (search_budget(study), numbers(study)) == (2, [3, 4])

    @pytest.mark.parametrize("missing", ["sampler", "pruner", "prune_share", "prune_grace", "start", "parallelism"])
    def test_incomplete_settings_are_damaged_and_not_read_as_the_defaults(self, missing, start, presets):
        study, folder = start(presets)
        add_search_trials(study, folder, SearchRequest(at_least=1))
        stored = study.user_attrs["search"]
        study.set_user_attr("search", {name: value for name, value in stored.items() if name != missing})
        with pytest.raises(ConfigurationError, match="damaged"):
            search_settings(study)

    def test_base_settings_are_the_common_settings_of_the_presets(self, start, space):
        common = TrainingConfig(num_epochs=7, gamma=0.9, weight_decay=0.01, learning_rate=0.002)
        presets = {
            "one": replace(common, experiment_name="one", step_size=3),
            "two": replace(common, experiment_name="two", step_size=4),
        }
        study, folder = start(presets, space=SearchSpace(space.parameters, base={"weight_decay": 0.5}))
        add_search_trials(study, folder, SearchRequest(at_least=1))
        later = {"late": replace(common, num_epochs=99)}
        enqueue_presets(study, folder, later)
        settings = search_settings(study)
        expected = replace(
            TrainingConfig(), num_epochs=7, gamma=0.9, learning_rate=0.002, min_lr=1e-6, weight_decay=0.5
        )
        assert settings.start == expected

    @pytest.mark.parametrize(
        "request_", [SearchRequest(more=1), SearchRequest(more=1, base=(TrainingConfig(gamma=0.7),))]
    )
    def test_base_settings_without_presets_come_from_the_request_and_the_invariants(self, request_, start, space):
        fixed = {"seed": 7, "monitor": "val_loss", "mode": "min"}
        study, folder = start(space=SearchSpace(space.parameters, base={"num_epochs": 5}), **fixed)
        add_search_trials(study, folder, request_)
        settings = search_settings(study)
        signal = {"early_stopping_monitor": "val_loss", "early_stopping_mode": "min"}
        default = TrainingConfig(seed=7, **signal, metadata_path="/data/metadata.yaml")
        assert settings.start == replace(request_.base[0] if request_.base else default, num_epochs=5)
        with pytest.raises(ConfigurationError, match=r"its search has base gamma 0\.[57], not 0\.4"):
            add_search_trials(study, folder, SearchRequest(more=1, base=(TrainingConfig(gamma=0.4),)))
        assert search_budget(study) == 1


@pytest.mark.parametrize(
    ("request_", "problems"),
    [
        (SearchRequest(), []),
        (SearchRequest(sampler=SamplerName.GP), []),
        (SearchRequest(sampler=SamplerName.GP, pruner=PrunerName.NONE), []),
        (SearchRequest(prune_share=0.25, prune_grace=3), []),
        (SearchRequest(pruner=PrunerName.HYPERBAND, prune_grace=3), []),
        (
            SearchRequest(sampler=SamplerName.GP, pruner=PrunerName.QUANTILE),
            [
                "--pruner: found 'quantile' with the sampler gp, which does not learn from pruned trials; "
                "remove --pruner, or choose --sampler tpe"
            ],
        ),
        (
            SearchRequest(pruner=PrunerName.HYPERBAND, prune_share=0.25),
            ["--prune-share: has no effect with the pruner hyperband; remove --prune-share"],
        ),
        (
            SearchRequest(pruner=PrunerName.NONE, prune_share=0.25, prune_grace=3),
            [
                "--prune-share: has no effect with the pruner none; remove --prune-share",
                "--prune-grace: has no effect without a pruner; remove --prune-grace",
            ],
        ),
        (
            SearchRequest(sampler=SamplerName.GP, prune_grace=3),
            ["--prune-grace: has no effect without a pruner; remove --prune-grace"],
        ),
    ],
)
def test_incompatible_options_are_reported_together(request_, problems):
    if not problems:
        check_search(request_)
        return
    with pytest.raises(ConfigurationError) as caught:
        check_search(request_)
    assert list(caught.value.problems) == problems


class TestBudget:
    @pytest.mark.parametrize(
        ("requests", "budget"),
        [
            ([{"at_least": 3}], 3),
            ([{"at_least": 3}, {"at_least": 3}], 3),
            ([{"at_least": 3}, {"at_least": 2}], 3),
            ([{"at_least": 3}, {"at_least": 5}], 5),
            ([{"more": 3}, {"more": 3}], 6),
            ([{"at_least": 3}, {"more": 2}, {"at_least": 4}], 5),
            ([{"more": 2}, {"at_least": 3}], 3),
            # `more` also adds to a budget that is not fully enqueued yet.
            ([{"more": 9}, {"more": 3}], 12),
            ([{"at_least": 9}, {"more": 1}], 10),
            ([{}], 0),
        ],
    )
    def test_at_least_is_a_total_and_more_is_added(self, requests, budget, start, presets, monkeypatch):
        monkeypatch.setattr("studies.study.search_budget.MOST_WAITING", 7)
        for arguments in requests:
            study, folder = start(presets)
            add_search_trials(study, folder, SearchRequest(**arguments))
        assert search_budget(study) == budget
        waiting = min(budget, 7)
        assert numbers(study) == list(range(3, 3 + waiting))
        records = [read_record(trial) for trial in study.get_trials()]
        assert count_unenqueued(study, records) == budget - waiting
        assert study_status(study, folder).pending == 3 + budget

    def test_budget_includes_ended_trials(self, start, outcome):
        study, folder = start()
        add_search_trials(study, folder, SearchRequest(at_least=2))
        assert [finish_next(study, folder, outcome) for _ in range(3)] == [0, 1, None]
        add_search_trials(study, folder, SearchRequest(at_least=2))
        assert (numbers(study), study_status(study, folder).pending) == ([0, 1], 0)
        add_search_trials(study, folder, SearchRequest(more=2))
        assert (numbers(study), study_status(study, folder).pending) == ([0, 1, 2, 3], 2)

    def test_large_budget_is_enqueued_step_by_step(self, start, outcome, monkeypatch):
        monkeypatch.setattr("studies.study.search_budget.MOST_WAITING", 3)
        study, folder = start()
        add_search_trials(study, folder, SearchRequest(at_least=7))
        counts = []
        while study_status(study, folder).pending:
            counts.append((len(numbers(study)), study_status(study, folder).pending))
            assert not top_up(study, folder)
            finish_next(study, folder, outcome)
            top_up(study, folder)
        assert counts == [(3, 7), (4, 6), (5, 5), (6, 4), (7, 3), (7, 2), (7, 1)]
        assert numbers(study) == list(range(7))
        assert not top_up(study, folder)

    def test_trial_that_another_process_enqueues_after_a_failed_claim_is_claimed(self, start, monkeypatch):
        study, folder = start()
        other, _ = load_study_for_changes(folder.path)
        add_search_trials(study, folder, SearchRequest(parallelism=3, at_least=2))
        claimed_numbers, claims = [], []

        def claim(*arguments):
            claims.append(claim_next(*arguments))
            if len(claims) == 3:  # after this claim failed and before the next `top_up`
                add_search_trials(other, folder, SearchRequest(more=1))
            return claims[-1]

        monkeypatch.setattr("studies.study.claiming.claim_next", claim)
        while (claimed := claim_next_trial(study, folder)) is not None:
            claimed_numbers.append(claimed.record.number)
        assert claimed_numbers == [0, 1, 2]
        assert claims[2] is None
        # The loop does not poll for trials that other workers hold.
        assert len(claims) <= 7

    def test_later_presets_do_not_use_the_search_budget(self, start, presets):
        study, folder = start()
        add_search_trials(study, folder, SearchRequest(at_least=2))
        enqueue_presets(study, folder, presets)
        assert not top_up(study, folder)
        assert (numbers(study), len(study.get_trials())) == ([0, 1], 5)
