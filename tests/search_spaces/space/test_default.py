from __future__ import annotations

import pytest

from search_spaces import (
    Choices,
    FloatRange,
    ModelDefinition,
    default_search_space,
    load_model_definitions,
    load_search_space,
)

READER = {"decoder": "attention", "stem_channels": [4, 8], "stage_channels": [8], "width": 16}
SHIPPED = load_model_definitions("config/model_config.yaml")


def models(**decoders: str) -> dict[str, ModelDefinition]:
    return {name: ModelDefinition.model_validate(READER | {"decoder": decoder}) for name, decoder in decoders.items()}


def test_a_study_that_knows_the_shipped_models_searches_the_shipped_space() -> None:
    shipped = load_search_space("config/search_space.yaml")
    assert default_search_space(SHIPPED) == shipped
    assert default_search_space(SHIPPED | models(mine="attention")) == shipped


@pytest.mark.parametrize(
    ("own", "choices", "loss_when"),
    [
        (models(one="attention", two="attention"), ("one", "two"), {}),
        (models(one="attention", line="ctc"), ("one", "line"), {"model_name": ("one",)}),
        (models(one="attention"), None, {}),
    ],
    ids=["readers", "with ctc", "a single one"],
)
def test_other_models_take_the_place_of_the_shipped_ones(
    own: dict[str, ModelDefinition], choices: tuple[str, ...] | None, loss_when: dict[str, tuple[str, ...]]
) -> None:
    space = default_search_space(own)
    model, loss, rate = (space.parameter(name) for name in ("model_name", "loss_type", "learning_rate"))
    assert (None if model is None else model.domain) == (None if choices is None else Choices(choices))
    assert loss is not None
    assert loss.when == loss_when
    assert rate is not None
    assert rate.domain == FloatRange(1e-4, 1e-2, log=True)


def test_ctc_models_alone_leave_no_loss_to_choose() -> None:
    names = default_search_space(models(line="ctc", other="ctc")).names
    assert not {"loss_type", "label_smoothing", "focal_gamma"} & set(names)
    assert "model_name" in names
