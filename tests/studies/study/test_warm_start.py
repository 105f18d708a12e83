"""Finished trials of earlier studies become observations or first search trials of a new study."""

from dataclasses import asdict, replace
from functools import partial

import pytest

from search_spaces import ConfigurationError, FloatRange, Parameter, SearchSpace, TrainingConfig, fit_loss
from studies import (
    SamplerName,
    SearchRequest,
    WhyEnded,
    add_search_trials,
    check_search,
    earlier_study,
    ended_records,
    load_study,
    require_same_search,
    search_budget,
    source_note,
    study_invariants,
    study_prior,
    study_status,
    suggest_all,
)
from studies.sampling.prior import Prior
from studies.storage.optuna_private import set_study_attribute
from studies.study.claiming import prepare_sampling
from studies.study.presets import study_space
from studies.study.search_budget import search_settings, top_up
from studies.study.warm_start import PRIOR
from studies.trials.claims import claim_next

ALWAYS = ("model_name", "learning_rate", "batch_size", "scheduler_type")


def finish_all(study, folder, outcome, whys=()):
    """Finish all pending trials: trial n with the value 0.5 + n / 100, and as `whys` say."""
    prepare_sampling(study)
    while (claim := claim_next(study, folder)) is not None:
        number = claim.record.number
        why = whys[number] if number < len(whys) else WhyEnded.MAX_EPOCHS
        if claim.record.kind == "search":
            settings = search_settings(study)
            definitions = study_invariants(study).definitions
            adjust = partial(fit_loss, definitions=definitions)
            claim.record_config(suggest_all(claim.trial, study_space(study), settings.start, adjust=adjust))
        value = 0.5 + number / 100
        if why is not WhyEnded.NONFINITE_LOSS:
            claim.trial.report(value, 3)
        claim.finish(replace(outcome, why_ended=why, best_val_char_accuracy=value), value)


@pytest.fixture
def earlier(start, outcome, tmp_path):
    """A function that returns a study with one preset and this number of search trials, all finished."""

    def make(name="old", trials=5, whys=(), **changes):
        study, folder = start({"one": TrainingConfig(experiment_name="one")}, path=tmp_path / name, **changes)
        add_search_trials(study, folder, SearchRequest(at_least=trials, sampler=SamplerName.RANDOM))
        finish_all(study, folder, outcome, whys)
        return earlier_study(name, load_study(folder.path)[0])

    return make


def begin(start, *sources, trials=3, **options):
    study, folder = start({}, **options)
    add_search_trials(study, folder, SearchRequest(at_least=trials, warm_start=sources))
    return study, folder


def test_finished_trials_are_observations_and_count_nowhere_else(start, earlier, outcome):
    whys = [*[WhyEnded.MAX_EPOCHS] * 3, WhyEnded.PRUNED, WhyEnded.NONFINITE_LOSS, WhyEnded.FAILED]
    old = earlier(whys=whys)
    study, folder = begin(start, old)
    prior = study_prior(load_study(folder.path)[0])
    assert [(item.name, item.is_pruned, item.value, item.epoch) for item in prior.observations] == [
        ("one", False, 0.5, 3),
        ("search_0001", False, 0.51, 3),
        ("search_0002", False, 0.52, 3),
        ("search_0003", True, 0.53, 3),
        ("search_0004", True, None, None),
    ]
    assert prior.configurations == ()
    (source,) = prior.sources
    assert (source.trials, source.used, source.clipped, source.dropped) == (5, 5, 0, 0)
    assert source.text == "5 observations from old (best 0.5200)"
    assert source_note(source) == (
        "warm start from old: same dataset, splits, metric and models, so 5 of its 5 finished trials are observations "
        "for the sampler"
    )
    status = study_status(study, folder)
    assert (len(status.rows), status.best, search_budget(study), ended_records(study)) == (3, None, 3, [])
    assert status.search.prior == prior.sources
    assert [trial.system_attrs["fixed_params"] for trial in study.get_trials()] == [{}] * 3


def test_same_warm_start_gives_the_same_trials(start, earlier, outcome, tmp_path):
    old = earlier(trials=12)
    params = []
    for name, sources in {"a": [old], "b": [old], "c": []}.items():
        study, folder = begin(start, *sources, path=tmp_path / name)
        finish_all(study, folder, outcome)
        params.append([trial.params for trial in study.get_trials()])
    assert params[0] == params[1] != params[2]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": {"fingerprint": "beef"}}, "the dataset's fingerprint"),
        ({"dataset": {"val_split": "dev"}}, "the dataset's val_split"),
        ({"monitor": "val_seq_accuracy"}, "early_stopping.monitor"),
        ({"models": {"small": {"width": 8}}}, "model 'small': width was 8 and is 16 now"),
    ],
)
def test_best_configurations_of_a_study_with_other_values_are_the_first_trials(
    changes, reason, start, earlier, invariants, outcome
):
    for name, change in changes.items():
        if name == "dataset":
            changes = {name: invariants.dataset | change}
        if name == "models":
            changes = {name: {**invariants.models, "small": {**invariants.models["small"], **change["small"]}}}
    old = earlier(trials=12, whys=[*[WhyEnded.MAX_EPOCHS] * 12, WhyEnded.PRUNED], **changes)
    study, folder = begin(start, old, trials=4)
    prior = study_prior(study)
    assert prior.observations == ()
    # The pruned trial, whose value is the best, is not among them.
    best = [item.settings for item in old.observations][::-1][1:11]
    assert [{key: params[key] for key in ALWAYS} for params in prior.configurations] == [
        {key: config[key] for key in ALWAYS} for config in best
    ]
    assert source_note(prior.sources[0]) == (
        "warm start from old: the values of its 13 finished trials are not comparable with those of this study, "
        f"because these differ: {reason}; so its 10 best configurations become the first search trials"
    )
    finish_all(study, folder, outcome)
    add_search_trials(study, folder, SearchRequest(at_least=11))
    finish_all(study, folder, outcome)
    trained = [trial.params for trial in study.get_trials()]
    assert trained[:10] == list(prior.configurations)
    assert (len(trained), study.get_trials()[10].system_attrs["fixed_params"]) == (11, {})


def test_other_seed_and_other_model_names_are_comparable(start, earlier, invariants):
    old = earlier(seed=9, models={**invariants.models, "mine": invariants.models["small"]})
    study, _ = begin(start, old)
    assert len(study_prior(study).observations) == 6


def test_studies_with_other_values_take_turns(start, earlier, invariants):
    dataset = invariants.dataset | {"fingerprint": "beef"}
    first, second = earlier("first", 6, dataset=dataset), earlier("second", 6, dataset=dataset, seed=4)
    study, _ = begin(start, first, second)
    found = [params["learning_rate"] for params in study_prior(study).configurations]
    best = [[item.settings["learning_rate"] for item in one.observations][::-1] for one in (first, second)]
    assert found == [rate for pair in zip(*best, strict=True) for rate in pair][:10]


def test_equal_configurations_are_tried_once(start, earlier, invariants):
    old = earlier(trials=1, dataset=invariants.dataset | {"fingerprint": "beef"})
    twice = replace(old, observations=old.observations * 2)
    study, _ = begin(start, twice)
    assert len(study_prior(study).configurations) == 2


def test_narrower_space_drops_and_clips_trials(start, earlier, space):
    old = earlier(trials=12)
    rates = sorted(item.settings["learning_rate"] for item in old.observations)
    narrow = FloatRange(1e-4, rates[-3], log=True)
    narrower = SearchSpace(
        tuple(replace(item, domain=narrow) if item.name == "learning_rate" else item for item in space)
    )
    study, _ = begin(start, old, space=narrower)
    (source,) = study_prior(study).sources
    outside = [rate for rate in rates if rate > narrow.high]
    clipped = [rate for rate in outside if rate <= narrow.high * (narrow.high / narrow.low) ** 0.1]
    assert (len(outside), source.trials) == (2, 13)
    assert (source.used, source.clipped, source.dropped) == (11 + len(clipped), len(clipped), 2 - len(clipped))
    if source.dropped:
        assert f"; {source.dropped} dropped, because the search space does not contain them" in source_note(source)


def test_new_parameter_gets_the_value_of_the_earlier_trials(start, earlier, space):
    wider = SearchSpace((*space, Parameter("weight_decay", FloatRange(1e-6, 1e-1, log=True))))
    study, _ = begin(start, earlier(), space=wider)
    assert {item.params["weight_decay"] for item in study_prior(study).observations} == {TrainingConfig.weight_decay}


def test_other_fixed_numbers_are_named(start, earlier, space):
    study, _ = begin(start, earlier(), space=replace(space, base={"num_epochs": 3}))
    note = source_note(study_prior(study).sources[0])
    assert note.endswith("the values are only roughly comparable, because fixed settings differ: num_epochs")


def test_warm_start_includes_the_prior_of_the_earlier_study(start, earlier, outcome, tmp_path):
    first = earlier()
    study, folder = begin(start, first, path=tmp_path / "second")
    finish_all(study, folder, outcome)
    second = earlier_study("second", study)
    third, _ = begin(start, first, second, path=tmp_path / "third")
    prior = study_prior(third)
    assert [(source.trials, source.used, source.dropped) for source in prior.sources] == [(6, 6, 0), (9, 3, 0)]
    assert source_note(prior.sources[1]).endswith("; 6 left out, because they repeat other trials")
    assert len(prior.observations) == 9
    alone, _ = begin(start, second, path=tmp_path / "alone")
    inherited = study_prior(alone).observations[3:]
    assert [item.params for item in inherited] == [item.params for item in study_prior(study).observations]


def test_repeated_command_is_accepted_and_another_warm_start_refused(start, earlier):
    old = earlier()
    study, folder = begin(start, old)
    before = asdict(study_prior(study))
    add_search_trials(study, folder, SearchRequest(at_least=3, warm_start=(old,)))
    add_search_trials(study, folder, SearchRequest(more=1))
    assert (asdict(study_prior(study)), search_budget(study)) == (before, 4)
    with pytest.raises(ConfigurationError, match="its search started with other trials of earlier studies; leave out"):
        require_same_search(study, SearchRequest(at_least=3, warm_start=(replace(old, observations=()),)))
    cold, _ = begin(start, path=folder.path.with_name("cold"))
    with pytest.raises(ConfigurationError, match="its search started without a warm start"):
        require_same_search(cold, SearchRequest(at_least=3, warm_start=(old,)))


@pytest.mark.parametrize("count", [0, 1])
def test_prior_of_a_killed_command_is_ignored(count, start, earlier):
    study, folder = start({})
    set_study_attribute(study, PRIOR, {"digest": "left by a killed command", "configurations": [{"batch_size": 16}]})
    assert study_prior(study) == Prior()
    add_search_trials(study, folder, SearchRequest(at_least=1, warm_start=(earlier(),) * count))
    assert (len(study_prior(study).observations), study_prior(study).configurations) == (6 * count, ())


def test_chain_of_warm_starts_keeps_trials_of_other_models_and_their_differences(
    start, earlier, invariants, outcome, space, tmp_path
):
    models = {"models": {**invariants.models, "medium": {**invariants.models["medium"], "decoder": "ctc"}}}
    short = replace(space, base={"num_epochs": 3})
    first = earlier(trials=8, space=short, **models)
    losses = {item.settings["loss_type"] for item in first.observations}
    assert losses == {"crossentropy", "ctc"}
    second, folder = begin(start, first, path=tmp_path / "second", **models)
    finish_all(second, folder, outcome)
    third, _ = begin(start, earlier_study("second", second), path=tmp_path / "third", **models)
    (source,) = study_prior(third).sources
    # The fixture's preset has a loss that its model does not support, so it was dropped at the first step.
    assert (source.used, source.dropped, source.differing_settings) == (3 + 8, 0, ("num_epochs",))


def test_configuration_of_a_preset_is_not_tried_again(start, earlier, invariants):
    old = earlier(trials=2, dataset=invariants.dataset | {"fingerprint": "beef"})
    study, folder = start({"mine": TrainingConfig(experiment_name="mine")})
    add_search_trials(study, folder, SearchRequest(at_least=3, warm_start=(old, replace(old, name="again"))))
    prior = study_prior(study)
    assert len(prior.configurations) == 2
    assert [source.used for source in prior.sources] == [2, 0]


@pytest.mark.parametrize(("trials", "is_random"), [(1, True), (5, False)])
def test_with_five_observations_the_first_trial_is_sampled_from_the_model(
    trials, is_random, start, earlier, outcome, tmp_path
):
    old = earlier(trials=trials)
    params = []
    for name, sources in {"warm": [old], "cold": []}.items():
        study, folder = begin(start, *sources, path=tmp_path / name, trials=1)
        finish_all(study, folder, outcome)
        params.append(study.get_trials()[0].params)
    assert (params[0] == params[1]) == is_random


@pytest.mark.parametrize("stored", ["x", {"digest": 3}, {"observations": "x"}, {"observations": [{"name": "one"}]}])
def test_damaged_prior_is_reported(stored, start, earlier):
    study, folder = begin(start, earlier())
    set_study_attribute(study, PRIOR, stored)
    with pytest.raises(ConfigurationError, match=r"study 'khmer-ocr', prior: damaged \(.*\); restore a backup"):
        top_up(load_study(folder.path)[0], folder) or study_prior(load_study(folder.path)[0])


def test_study_without_finished_trials_is_refused(start):
    study, _ = start({"one": TrainingConfig()})
    with pytest.raises(ConfigurationError, match="old: found a study without a finished trial"):
        earlier_study("old", study)


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({}, "--warm-start: has no effect without search trials"),
        ({"at_least": 1, "sampler": "random"}, "--warm-start: the sampler random does not learn from earlier trials"),
    ],
)
def test_warm_start_without_effect_is_refused(request_, problem, earlier):
    with pytest.raises(ConfigurationError, match=problem):
        check_search(SearchRequest(warm_start=(earlier(),), **request_))
