import pytest

from search_spaces import (
    Choices,
    FloatRange,
    ModelDefinition,
    default_search_space,
    load_model_definitions,
    load_search_space,
)

MODEL = {"decoder": "attention", "stem_channels": [4, 8], "stage_channels": [8], "width": 16}
DEFAULT_MODELS = load_model_definitions("config/model_config.yaml")


def models(**decoders):
    return {name: ModelDefinition.model_validate(MODEL | {"decoder": decoder}) for name, decoder in decoders.items()}


def test_default_space_is_unchanged_if_all_its_models_are_defined():
    default_space = load_search_space("config/search_space.yaml")
    assert default_search_space(DEFAULT_MODELS) == default_space
    assert default_search_space(DEFAULT_MODELS | models(mine="attention")) == default_space


@pytest.mark.parametrize(
    ("own", "choices", "loss_when"),
    [
        (models(one="attention", two="attention"), ("one", "two"), {}),
        (models(one="attention", line="ctc"), ("one", "line"), {"model_name": ("one",)}),
        (models(one="attention"), None, {}),
    ],
    ids=["two attention models", "attention and ctc", "one model"],
)
def test_models_of_the_study_replace_undefined_default_models(own, choices, loss_when):
    space = default_search_space(own)
    model, loss, rate = (space.parameter(name) for name in ("model_name", "loss_type", "learning_rate"))
    assert (None if model is None else model.domain) == (None if choices is None else Choices(choices))
    assert loss is not None
    assert loss.when == loss_when
    assert rate is not None
    assert rate.domain == FloatRange(1e-4, 1e-2, log=True)


def test_loss_is_not_sampled_if_all_models_are_ctc_models():
    names = default_search_space(models(line="ctc", other="ctc")).names
    assert not {"loss_type", "label_smoothing", "focal_gamma"} & set(names)
    assert "model_name" in names
