from itertools import product

import pytest

from search_spaces import (
    ConfigurationError,
    TrainingConfig,
    fit_loss,
    load_search_space,
    parse_search_space,
)

CTC_LOSS = "CTC models support only CTC loss, which is set automatically"
CTC_MODELS = "only CTC models support this loss function, which is set automatically"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "space:\n  model_name: [small, ctc, large]\n  loss_type: [crossentropy, focal]",
            [
                "config.yaml:3: space.loss_type: the model 'ctc' would get 'crossentropy' or 'focal'; "
                f"{CTC_LOSS}; add when: {{model_name: [small, large]}}"
            ],
        ),
        (
            "space:\n  loss_type: [crossentropy, focal]\n  model_name: [small, ctc]",
            [
                "config.yaml:2: space.loss_type: the model 'ctc' would get 'crossentropy' or 'focal'; "
                f"{CTC_LOSS}; add when: {{model_name: [small]}} and move model_name above loss_type"
            ],
        ),
        (
            "space:\n  model_name: [small, ctc]\n  loss_type: {choices: [crossentropy, ctc], when: {model_name: ctc}}",
            [
                "config.yaml:3: space.loss_type: the model 'ctc' would get 'crossentropy'; "
                f"{CTC_LOSS}; use when: {{model_name: [small]}}"
            ],
        ),
        (
            "space:\n  model_name: [small, medium]\n  loss_type: [crossentropy, ctc]",
            [f"config.yaml:3: space.loss_type: the models 'small', 'medium' would get 'ctc'; {CTC_MODELS}; remove ctc"],
        ),
        (
            "base: {model_name: ctc}\nspace: {loss_type: [crossentropy, focal, ctc]}",
            [
                "config.yaml:2: space.loss_type: the model 'ctc' would get 'crossentropy' or 'focal'; "
                f"{CTC_LOSS}; remove loss_type"
            ],
        ),
        (
            "base: {loss_type: focal}\nspace: {model_name: [small, ctc]}",
            [
                f"config.yaml:1: base.loss_type: the model 'ctc' would get 'focal'; {CTC_LOSS}; remove this line; "
                "to sample the loss function of other models, add "
                "'loss_type: {choices: [crossentropy, focal], when: {model_name: [small]}}' to 'space'"
            ],
        ),
        (
            "base: {loss_type: ctc}\nspace: {model_name: [small, ctc]}",
            [f"config.yaml:1: base.loss_type: the model 'small' would get 'ctc'; {CTC_MODELS}; remove this line"],
        ),
        (
            "base: {loss_type: ctc, model_name: large}\nspace: {gamma: [0.1, 0.2]}",
            [f"config.yaml:1: base.loss_type: the model 'large' would get 'ctc'; {CTC_MODELS}; remove this line"],
        ),
        (
            "space:\n  label_smoothing: {low: 0, high: 0.1, when: {loss_type: focal}}\n  model_name: [small, ctc]",
            [
                "config.yaml:2: space.label_smoothing.when.loss_type: the loss function depends on "
                "model_name, which is sampled later; move model_name above label_smoothing"
            ],
        ),
    ],
)
def test_unsupported_loss_of_a_model_is_rejected(write, text, problems, definitions):
    with pytest.raises(ConfigurationError) as caught:
        load_search_space(write(text), definitions)
    assert list(caught.value.problems) == problems
    assert load_search_space(write(text)).names


@pytest.mark.parametrize(
    "data",
    [
        {"space": {"loss_type": ["crossentropy", "ctc"]}},
        {"space": {"model_name": ["small", "ctc"]}},
        {"base": {"loss_type": "ctc"}, "space": {"gamma": [0.1, 0.2]}},
        {"base": {"loss_type": "ctc", "model_name": "ctc"}, "space": {"gamma": [0.1, 0.2]}},
        {"base": {"loss_type": "focal"}, "space": {"model_name": ["small", "large"]}},
        {"space": {"loss_type": ["crossentropy", "focal"], "model_name": ["small", "large"]}},
        {
            "base": {"augmentation": False, "model_name": "ctc"},
            "space": {"loss_type": {"choices": ["crossentropy", "focal"], "when": {"augmentation": True}}},
        },
        {"space": {"label_smoothing": {"low": 0.0, "high": 0.1, "when": {"loss_type": "crossentropy"}}}},
    ],
)
def test_supported_loss_of_a_model_is_accepted(data, definitions):
    assert parse_search_space(data, definitions=definitions).as_dict()["base"] == data.get("base", {})


def test_default_space_never_combines_a_model_with_an_unsupported_loss(definitions):
    space = load_search_space("config/search_space.yaml", definitions)
    for model, loss in product(definitions, ("crossentropy", "focal")):
        start = space.start_config([TrainingConfig(model_name="ctc", loss_type="ctc")])
        config, active = sampled(space, start, {"model_name": model, "loss_type": loss}, definitions)
        if model == "ctc":
            assert config.loss_type == "ctc"
            assert not {"loss_type", "label_smoothing", "focal_gamma"} & active
        else:
            assert config.loss_type == loss
            assert ("label_smoothing" in active, "focal_gamma" in active) == (loss != "focal", loss == "focal")


def sampled(space, config, values, definitions):
    """Sample like a search: conditions are evaluated with the fitted loss, but sampled values are kept."""
    active = set()
    for parameter in space:
        if parameter.is_active(fit_loss(config, definitions)):
            active.add(parameter.name)
            setattr(config, parameter.name, values.get(parameter.name, getattr(config, parameter.name)))
    return fit_loss(config, definitions), active


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "base: {min_lr: 0.01}\nspace: {learning_rate: {low: 1e-3, high: 0.1}}",
            "config.yaml:2: space.learning_rate.low: found 0.001; expected at least 0.01, the largest min_lr in this "
            "search space; use 0.01 or more, or a smaller min_lr",
        ),
        (
            "space: {min_lr: {low: 0, high: 0.01}, learning_rate: [0.1, 0.005]}",
            "config.yaml:1: space.learning_rate: found 0.005; expected at least 0.01, the largest min_lr",
        ),
        (
            "base: {learning_rate: 0.001, min_lr: 0.01}\nspace: {gamma: [0.1, 0.2]}",
            "config.yaml:1: base.learning_rate: found 0.001; expected at least 0.01, the largest min_lr",
        ),
        (
            "space: {min_lr: {low: 0, high: 0.01}}",
            "config.yaml:1: space.min_lr: min_lr is sampled, but not every trial samples learning_rate, so "
            "min_lr could exceed learning_rate; add learning_rate to 'base'",
        ),
        (
            "space: {min_lr: [0, 1e-4], learning_rate: {low: 1e-3, high: 0.1, when: {augmentation: true}}}",
            "space.min_lr: min_lr is sampled, but not every trial samples learning_rate",
        ),
    ],
)
def test_min_lr_above_the_learning_rate_is_rejected(write, text, message):
    with pytest.raises(ConfigurationError) as caught:
        load_search_space(write(text))
    (problem,) = caught.value.problems
    assert message in problem


@pytest.mark.parametrize(
    "data",
    [
        {"base": {"min_lr": 1e-3}, "space": {"learning_rate": {"low": 1e-3, "high": 0.1}}},
        {"base": {"learning_rate": 1e-3}, "space": {"min_lr": {"low": 0.0, "high": 1e-3}}},
        {"space": {"min_lr": [0.0, 1e-4], "learning_rate": [1e-3, 1e-4]}},
    ],
)
def test_min_lr_up_to_the_learning_rate_is_accepted(data):
    assert parse_search_space(data).has_valid_min_lr
