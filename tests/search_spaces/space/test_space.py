import json
import math
from dataclasses import asdict, replace

import pytest

from search_spaces import (
    Choices,
    FloatRange,
    IntRange,
    Parameter,
    SearchSpace,
    TrainingConfig,
    parse_search_space,
)


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
def test_domain_contains_only_its_values(domain, inside, outside):
    assert [value for value in inside if not domain.contains(value)] == []
    assert [value for value in outside if domain.contains(value)] == []


@pytest.mark.parametrize(
    ("domain", "value", "margin", "clipped"),
    [
        (FloatRange(0.0, 1.0), 1.09, 0.1, 1.0),
        (FloatRange(0.0, 1.0), 1.11, 0.1, None),
        (FloatRange(0.0, 1.0), -7.5, math.inf, 0.0),
        (FloatRange(0.0, 1.0), 0.25, 0.0, 0.25),
        # On the logarithmic scale, the tenth of two powers of ten is a factor of 1.58.
        (FloatRange(1e-4, 1e-2, log=True), 0.015, 0.1, 1e-2),
        (FloatRange(1e-4, 1e-2, log=True), 0.016, 0.1, None),
        (FloatRange(1e-4, 1e-2, log=True), 6.4e-5, 0.1, 1e-4),
        (FloatRange(1e-4, 1e-2, log=True), 0.0, math.inf, None),
        (FloatRange(0.0, 0.35, step=0.1), 0.33, 0.1, 0.3),
        (FloatRange(0.0, 1.0, step=0.1), 0.31, 0.1, 0.3),
        (FloatRange(0.0, 1.0, step=0.1), 0.31, 0.0, None),
        (IntRange(16, 100, step=16), 100, 0.1, 96),
        (IntRange(16, 128, step=16), 20, 0.1, 16),
        # With two values, each number between them is far from both.
        (IntRange(16, 96, step=80), 48, 0.1, None),
        (IntRange(16, 96, step=80), 48, math.inf, 16),
        (IntRange(16, 128, step=16), 512, math.inf, 128),
        (IntRange(1, 64, log=True), 90, 0.1, 64),
        (FloatRange(0.0, 1.0), math.nan, math.inf, None),
        (FloatRange(0.0, 1.0), True, math.inf, None),
        (FloatRange(0.0, 1.0), "0.5", math.inf, None),
        (Choices(("adam", "adamw")), "adam", 0.0, "adam"),
        (Choices(("adam", "adamw")), "sgd", math.inf, None),
    ],
)
def test_clipped_value_is_the_nearest_one_of_the_domain_within_a_margin(domain, value, margin, clipped):
    found = domain.clipped(value, margin)
    assert (found, type(found)) == (clipped, type(clipped))
    assert found is None or domain.contains(found)


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
def test_widened_domain_contains_the_value_where_possible(domain, value, wider):
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
def test_parameter_is_active_if_all_its_conditions_are_met(config, names):
    assert [parameter.name for parameter in SPACE.active(config)] == names


def test_widened_space_contains_the_presets_that_meet_the_conditions():
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


@pytest.mark.parametrize(
    ("domain", "text"),
    [
        (FloatRange(1e-4, 1e-2, log=True), "0.0001 to 0.01, log scale"),
        (FloatRange(0.0, 1.0, step=0.25), "0 to 1, step 0.25"),
        (IntRange(16, 128, step=16), "16 to 128, step 16"),
        (IntRange(1, 64, log=True), "1 to 64, log scale"),
        (Choices((True, False)), "true, false"),
    ],
)
def test_format_of_a_domain(domain, text):
    assert str(domain) == text


def test_values_of_parameters_and_fixed_settings():
    space = SearchSpace(SPACE.parameters, {"num_epochs": 30})
    names = ("learning_rate", "scheduler_type", "num_epochs", "batch_size")
    assert [space.values_of(name) for name in names] == [(1e-3, 1e-2), ("cosine", "steplr"), (30,), ()]


@pytest.mark.parametrize("min_lr", [Parameter("min_lr", FloatRange(0.0, 1e-4)), None])
def test_widening_keeps_min_lr_below_the_learning_rate(min_lr):
    rate = Parameter("learning_rate", FloatRange(1e-4, 1e-2, log=True))
    rates = (rate,) if min_lr is None else (rate, min_lr)
    batches = Parameter("batch_size", IntRange(16, 64))
    space = SearchSpace((*rates, batches), {"min_lr": 1e-4} if min_lr is None else {})
    wider = space.widened([TrainingConfig(learning_rate=1e-5, batch_size=8)])
    assert wider == SearchSpace((*rates, Parameter("batch_size", IntRange(8, 64))), space.base)
    assert parse_search_space(wider.as_dict()) == wider


A = TrainingConfig(
    model_name="tiny",
    metadata_path="data/metadata.yaml",
    num_workers=0,
    batch_size=8,
    learning_rate=1e-5,
    min_lr=1e-5,
    optimizer_betas=[0.8, 0.9],
    experiment_name="a",
    output_dir="out",
    seed=3,
)
B = replace(A, model_name="wide", metadata_path="/abs/data/metadata.yaml", batch_size=64, learning_rate=1e-3)
VARIED = SearchSpace((Parameter("batch_size", IntRange(16, 128, step=16)),), {"num_epochs": 7})


@pytest.mark.parametrize(
    ("space", "presets", "differs"),
    [
        (VARIED, [], {"num_epochs": 7}),
        # Both share workers, betas, seed and min_lr, but not the learning rate; 8 is not a batch size of the space.
        (
            VARIED,
            [A, B],
            {
                "num_epochs": 7,
                "num_workers": 0,
                "optimizer_betas": [0.8, 0.9],
                "seed": 3,
                "min_lr": 1e-5,
                "metadata_path": "data/metadata.yaml",
                "model_name": "tiny",
            },
        ),
        (
            SearchSpace((), {"num_workers": 2}),
            [TrainingConfig(num_workers=8, num_epochs=9)],
            {"num_workers": 2, "num_epochs": 9},
        ),
        # The default model if a preset has it, else the first preset's model.
        (SearchSpace(()), [TrainingConfig(model_name="tiny"), TrainingConfig()], {}),
        (
            SearchSpace(()),
            [TrainingConfig(model_name="tiny"), TrainingConfig(model_name="wide")],
            {"model_name": "tiny"},
        ),
        (SearchSpace((), {"model_name": "large"}), [TrainingConfig(model_name="tiny")], {"model_name": "large"}),
        (
            SearchSpace((Parameter("model_name", Choices(("small", "large"))),)),
            [TrainingConfig(model_name="ctc", loss_type="ctc")],
            {"model_name": "small", "loss_type": "ctc"},
        ),
        # min_lr is lowered to the lowest learning rate of the space, of the presets, and to the default.
        (
            SearchSpace((Parameter("learning_rate", FloatRange(1e-4, 1e-2, log=True)),)),
            [TrainingConfig(learning_rate=1e-2, min_lr=1e-3), TrainingConfig(learning_rate=1e-3, min_lr=1e-3)],
            {"min_lr": 1e-4},
        ),
        (
            SearchSpace((), {"min_lr": 1e-3}),
            [TrainingConfig(learning_rate=1e-4)],
            {"learning_rate": 1e-4, "min_lr": 1e-4},
        ),
        (
            SearchSpace(()),
            [TrainingConfig(learning_rate=0.1, min_lr=0.01), TrainingConfig(learning_rate=0.2, min_lr=0.01)],
            {"min_lr": 1e-3},
        ),
        # A learning rate that every trial samples does not lower a fixed min_lr.
        (
            SearchSpace((Parameter("learning_rate", FloatRange(0.01, 0.1)),), {"min_lr": 0.005}),
            [TrainingConfig(learning_rate=1e-4)],
            {"learning_rate": 0.01, "min_lr": 0.005},
        ),
        # If it is sampled only under a condition, other trials have the learning rate of the presets.
        (
            SearchSpace((Parameter("learning_rate", FloatRange(0.01, 0.1), {"optimizer_type": ("adamw",)}),)),
            [TrainingConfig(learning_rate=1e-2, min_lr=1e-2)],
            {"learning_rate": 1e-2, "min_lr": 1e-2},
        ),
    ],
)
def test_start_configuration_combines_base_presets_and_defaults(space, presets, differs):
    start = space.start_config(iter(presets))
    default = asdict(TrainingConfig())
    assert {name: value for name, value in asdict(start).items() if value != default[name]} == differs


def test_start_configuration_shares_no_list_with_space_or_preset():
    space = SearchSpace((), {"optimizer_betas": [0.7, 0.9]})
    space.start_config([A]).optimizer_betas[0] = 0.0
    SearchSpace(()).start_config([A]).optimizer_betas[0] = 0.0
    assert space.base["optimizer_betas"] == [0.7, 0.9]
    assert A.optimizer_betas == [0.8, 0.9]


CHANGED = [
    (
        {"learning_rate": FloatRange(1e-3, 1e-2, log=True)},
        ["learning_rate was {low: 0.0001, high: 0.01, log: true} and is {low: 0.001, high: 0.01, log: true} now"],
    ),
    ({"learning_rate": None}, ["learning_rate was removed"]),
    ({"gamma": FloatRange(0.1, 0.5)}, ["gamma was added"]),
    ({"optimizer_type": Choices(("adam", "adamw"))}, []),
    (
        {"scheduler_type": Choices(("cosine", "steplr", "plateau"))},
        ["scheduler_type was [cosine, steplr] and is [cosine, steplr, plateau] now"],
    ),
]


@pytest.mark.parametrize(("domains", "texts"), CHANGED)
def test_changes_of_parameters(domains, texts):
    before = {
        "learning_rate": FloatRange(1e-4, 1e-2, log=True),
        "scheduler_type": Choices(("cosine", "steplr")),
        "optimizer_type": Choices(("adamw", "adam")),
    }
    spaces = [
        SearchSpace(tuple(Parameter(name, domain) for name, domain in items if domain is not None))
        for items in (before.items(), reversed((before | domains).items()))
    ]
    assert spaces[0].changes(spaces[1]) == texts


def test_changes_of_conditions_and_base():
    warmup = Parameter("warmup_epochs", IntRange(0, 5), {"scheduler_type": ("cosine", "steplr")})
    old = SearchSpace((warmup,), {"num_epochs": 30, "patience": 3, "optimizer_betas": [0.8, 0.9]})
    same = replace(warmup, when={"scheduler_type": ("steplr", "cosine")})
    assert old.changes(SearchSpace((same,), dict(sorted(old.base.items())))) == []
    new = replace(warmup, when={"scheduler_type": ("cosine",)})
    assert old.changes(SearchSpace((new,), {"num_epochs": 40, "gamma": 0.1, "optimizer_betas": [0.9, 0.8]})) == [
        "base num_epochs was 30 and is 40 now",
        "base patience was removed",
        "base optimizer_betas was [0.8, 0.9] and is [0.9, 0.8] now",
        "base gamma was added",
        "warmup_epochs was {low: 0, high: 5, when: {scheduler_type: [cosine, steplr]}} "
        "and is {low: 0, high: 5, when: {scheduler_type: [cosine]}} now",
    ]


def test_space_read_back_from_json_has_no_changes():
    assert SPACE.changes(parse_search_space(json.loads(json.dumps(SPACE.as_dict())))) == []
