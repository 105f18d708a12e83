from __future__ import annotations

import math

import pytest

from search_spaces import Choices, FloatRange, IntRange, Parameter, SearchSpace, TrainingConfig


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (FloatRange(0.1, 1.0), [0.1, 0.5, 1.0, 1], [0.09, 1.1, math.nan, math.inf, True, "0.5", None]),
        (FloatRange(0.0, 1.0, step=0.1), [0.0, 0.3, 0.7, 1.0], [0.25, 1.1]),
        (FloatRange(1e-4, 1e-2, log=True), [1e-4, 1e-3], [0.0, -1.0]),
        (IntRange(1, 8), [1, 8], [0, 9, 2.0, True, "2"]),
        (IntRange(16, 128, step=16), [16, 48, 128], [17, 100, 144]),
        (Choices(("adam", "adamw")), ["adam"], ["Adam", 0, None]),
        (Choices((True, False)), [True, False], [1, 0, "true"]),
        (Choices((1, 2)), [1, 2], [True, 3]),
    ],
)
def test_what_a_domain_holds(
    domain: FloatRange | IntRange | Choices, inside: list[object], outside: list[object]
) -> None:
    assert [value for value in inside if not domain.holds(value)] == []
    assert [value for value in outside if domain.holds(value)] == []


@pytest.mark.parametrize(
    ("domain", "value", "wider"),
    [
        (FloatRange(0.1, 1.0), 2.0, FloatRange(0.1, 2.0)),
        (FloatRange(0.1, 1.0), 0, FloatRange(0.0, 1.0)),
        (FloatRange(0.1, 1.0), 0.5, FloatRange(0.1, 1.0)),
        (FloatRange(1e-4, 1e-2, log=True), 0.0, FloatRange(1e-4, 1e-2, log=True)),
        (FloatRange(1e-4, 1e-2, log=True), 1e-5, FloatRange(1e-5, 1e-2, log=True)),
        (FloatRange(0.0, 1.0, step=0.25), 1.5, FloatRange(0.0, 1.5, step=0.25)),
        (FloatRange(0.0, 1.0, step=0.25), 1.1, FloatRange(0.0, 1.0, step=0.25)),
        (FloatRange(0.1, 1.0), math.inf, FloatRange(0.1, 1.0)),
        (IntRange(16, 128, step=16), 160, IntRange(16, 160, step=16)),
        (IntRange(32, 128, step=16), 16, IntRange(16, 128, step=16)),
        (IntRange(16, 128, step=16), 100, IntRange(16, 128, step=16)),
        (IntRange(1, 8, log=True), 0, IntRange(1, 8, log=True)),
        (Choices(("small", "medium")), "mine", Choices(("small", "medium"))),
    ],
)
def test_widening(
    domain: FloatRange | IntRange | Choices, value: object, wider: FloatRange | IntRange | Choices
) -> None:
    assert domain.widened(value) == wider


SPACE = SearchSpace(
    (
        Parameter("learning_rate", FloatRange(1e-3, 1e-2, log=True)),
        Parameter("scheduler_type", Choices(("cosine", "steplr"))),
        Parameter("warmup_epochs", IntRange(0, 5), {"scheduler_type": ("cosine",)}),
        Parameter("gamma", FloatRange(0.1, 0.7), {"scheduler_type": ("steplr",), "loss_type": ("focal", "ctc")}),
    )
)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (TrainingConfig(scheduler_type="cosine"), ["learning_rate", "scheduler_type", "warmup_epochs"]),
        (TrainingConfig(scheduler_type="steplr"), ["learning_rate", "scheduler_type"]),
        (
            TrainingConfig(scheduler_type="steplr", loss_type="ctc"),
            ["learning_rate", "scheduler_type", "gamma"],
        ),
        (TrainingConfig(scheduler_type="plateau", loss_type="focal"), ["learning_rate", "scheduler_type"]),
    ],
)
def test_active_parameters_are_those_whose_conditions_all_hold(config: TrainingConfig, names: list[str]) -> None:
    assert [parameter.name for parameter in SPACE.active(config)] == names


def test_widened_holds_the_presets_where_their_conditions_hold() -> None:
    presets = [
        TrainingConfig(scheduler_type="cosine", warmup_epochs=9, learning_rate=1e-4),
        TrainingConfig(scheduler_type="steplr", warmup_epochs=20, learning_rate=0.05),
        TrainingConfig(scheduler_type="plateau", learning_rate=0.005),
    ]
    wider = SPACE.widened(iter(presets))
    domains = {parameter.name: parameter.domain for parameter in wider}
    assert domains["learning_rate"] == FloatRange(1e-4, 0.05, log=True)
    assert domains["warmup_epochs"] == IntRange(0, 9)
    assert domains["scheduler_type"] == Choices(("cosine", "steplr"))
    assert wider.names == SPACE.names
    assert wider.widened(presets) == wider


def test_holds_by_name() -> None:
    assert SPACE.holds("warmup_epochs", 3)
    assert not SPACE.holds("warmup_epochs", 9)
    assert not SPACE.holds("batch_size", 32)
