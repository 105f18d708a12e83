import math
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces import Choices, FloatRange, ModelDefinition, Parameter, SearchSpace, TrainingConfig
from studies import SamplerName
from studies.sampling.prior import OBSERVATION_MARGIN, Fit, Observation, fit_to_space
from studies.sampling.samplers import StatelessSampler

PARAMS = {"model_name": "small", "learning_rate": 1e-3, "batch_size": 32, "scheduler_type": "cosine"}
CONFIG = TrainingConfig(**PARAMS, warmup_epochs=2)


@pytest.fixture
def definitions(invariants):
    return invariants.definitions


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Fit({**PARAMS, "warmup_epochs": 2}, False, ())),
        # Parameters without effect in this configuration are left out.
        ({"scheduler_type": "steplr"}, Fit({**PARAMS, "scheduler_type": "steplr"}, False, ())),
        ({"learning_rate": 0.0105}, Fit({**PARAMS, "learning_rate": 1e-2, "warmup_epochs": 2}, True, ())),
        ({"batch_size": 40}, Fit({**PARAMS, "batch_size": 48, "warmup_epochs": 2}, True, ())),
        ({"learning_rate": 0.1}, None),
        ({"model_name": "large"}, None),
        ({"optimizer_type": "adamw"}, None),
        (
            {"num_epochs": 3, "weight_decay": 0.5},
            Fit({**PARAMS, "warmup_epochs": 2}, False, ("num_epochs", "weight_decay")),
        ),
        # These do not affect the value, or are compared with the study's invariants.
        (
            {"seed": 7, "device": "cpu", "threads": 3, "metadata_path": "x.yaml"},
            Fit({**PARAMS, "warmup_epochs": 2}, False, ()),
        ),
    ],
)
def test_configuration_is_expressed_by_the_parameters_of_a_space(changes, expected, space, definitions):
    start = TrainingConfig()
    found = fit_to_space(replace(CONFIG, **changes), (), space, start, definitions, OBSERVATION_MARGIN)
    assert (found and found._replace(differing_settings=tuple(sorted(found.differing_settings)))) == expected


def test_distant_numbers_are_clipped_only_without_a_margin(space, definitions):
    config = replace(CONFIG, learning_rate=5.0, batch_size=4096)
    assert fit_to_space(config, (), space, TrainingConfig(), definitions, OBSERVATION_MARGIN) is None
    found = fit_to_space(config, (), space, TrainingConfig(), definitions)
    assert (found.params["learning_rate"], found.params["batch_size"], found.clipped) == (1e-2, 128, True)


def test_loss_that_the_model_determines_is_no_difference(space, invariants):
    definitions = {"small": ModelDefinition.model_validate({**invariants.models["small"], "decoder": "ctc"})}
    found = fit_to_space(
        replace(CONFIG, loss_type="ctc", label_smoothing=0.0), (), space, TrainingConfig(), definitions
    )
    assert found == Fit({**PARAMS, "warmup_epochs": 2}, False, ())


@pytest.mark.parametrize(
    ("observation", "state", "value", "reports"),
    [
        (Observation("a", False, 0.9, 4, {}, PARAMS), TrialState.COMPLETE, 0.9, {4: 0.9}),
        (Observation("a", True, 0.4, 2, {}, PARAMS), TrialState.PRUNED, None, {2: 0.4}),
        (Observation("a", True, None, None, {}, PARAMS), TrialState.PRUNED, None, {}),
    ],
)
def test_observation_is_a_finished_trial_for_the_sampler(observation, state, value, reports, space):
    trial = observation.as_trial(space)
    assert (trial.state, trial.value, trial.intermediate_values, trial.params) == (state, value, reports, PARAMS)
    assert all(
        trial.distributions[name]._contains(trial.distributions[name].to_internal_repr(PARAMS[name])) for name in PARAMS
    )


def test_other_value_of_a_setting_that_was_sampled_is_not_contained(space, definitions):
    config, start = replace(CONFIG, weight_decay=0.5), TrainingConfig()
    found = [fit_to_space(config, sampled, space, start, definitions) for sampled in ((), {"weight_decay": 0.5})]
    assert found == [Fit({**PARAMS, "warmup_epochs": 2}, False, ("weight_decay",)), None]


def test_rounding_error_on_a_grid_is_no_clip_and_gives_a_valid_trial(definitions):
    space = SearchSpace((Parameter("label_smoothing", FloatRange(0.0, 0.5, step=0.1)),))
    config = replace(CONFIG, label_smoothing=0.1 + 0.2)
    fit = fit_to_space(config, (), space, CONFIG, definitions, OBSERVATION_MARGIN)
    assert fit == Fit({"label_smoothing": 0.3}, False, ())
    assert Observation("a", False, 0.9, 4, {}, fit.params).as_trial(space).params == {"label_smoothing": 0.3}


def good_near(rate, count):
    """A prior in which the value falls with the distance of the learning rate from `rate`."""
    rates = [10 ** (-4 + 2 * step / (count - 1)) for step in range(count)]
    values = [1 - abs(math.log10(one / rate)) / 4 for one in rates]
    return [
        Observation(str(one), False, value, 3, {}, {"model_name": "small", "learning_rate": one})
        for one, value in zip(rates, values, strict=True)
    ]


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_first_search_trial_is_sampled_near_the_best_observations(name, start):
    space = SearchSpace(
        (
            Parameter("model_name", Choices(("small", "medium"))),
            Parameter("learning_rate", FloatRange(1e-4, 1e-2, log=True)),
        )
    )
    study, _ = start(space=space)
    sampled = {}
    for prior_name, prior in {"low": good_near(2e-4, 20), "high": good_near(5e-3, 20), "none": []}.items():
        sampled[prior_name] = []
        for seed in range(5):
            study.sampler = StatelessSampler(SamplerName(name), seed, 1, lambda: space, prior)
            memory = optuna.create_study(direction="maximize", sampler=study.sampler)
            trial = memory.ask()
            trial.suggest_categorical("model_name", ("small", "medium"))
            sampled[prior_name].append(trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True))
    assert max(sampled["low"]) < 1e-3 < min(sampled["high"])
    # The same prior gives the same parameters, and without a prior the first trial is random.
    assert sampled["none"] not in (sampled["low"], sampled["high"])
