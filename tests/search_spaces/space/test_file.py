import json

import pytest

from search_spaces import (
    Choices,
    ConfigurationError,
    FloatRange,
    IntRange,
    load_experiments,
    load_search_space,
    parse_search_space,
)

SHIPPED = "config/search_space.yaml"


def test_default_space_contains_the_default_presets(definitions):
    space = load_search_space(SHIPPED, definitions)
    presets = load_experiments("config/phase3_simple_configs.yaml").experiments.values()
    assert space.widened(presets) == space
    for preset in presets:
        assert all(p.domain.contains(getattr(preset, p.name)) for p in space.active(preset))


def test_space_is_read_back_from_json():
    space = load_search_space(SHIPPED)
    assert parse_search_space(json.loads(json.dumps(space.as_dict()))) == space


@pytest.mark.parametrize("step", [None, 1.0, 0.5])
def test_float_range_keeps_its_step(step):
    data = {"low": 0.0, "high": 4.0} | ({} if step is None else {"step": step})
    space = parse_search_space({"space": {"gradient_clip_norm": data}})
    assert next(iter(space)).domain == FloatRange(0.0, 4.0, step=step)
    assert parse_search_space(space.as_dict()) == space


DOCUMENTED = """\
base: {num_epochs: 30}
space:
  model_name: [small, medium, large, ctc]
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
  batch_size: {low: 16, high: 128, step: 16}
  scheduler_type: [cosine, steplr]
  warmup_epochs: {low: 0, high: 5, when: {scheduler_type: cosine}}
  gamma: {low: 0, high: 1, step: 0.25, when: {scheduler_type: [steplr], train_split: train}}
  augmentation: [true, false]
"""


def test_documented_format_is_read(write):
    space = load_search_space(write(DOCUMENTED.replace("low: 0, high: 1,", "low: 0.25, high: 1,")))
    assert space.base == {"num_epochs": 30}
    assert {parameter.name: parameter.domain for parameter in space} == {
        "model_name": Choices(("small", "medium", "large", "ctc")),
        "learning_rate": FloatRange(1e-4, 1e-2, log=True),
        "batch_size": IntRange(16, 128, step=16),
        "scheduler_type": Choices(("cosine", "steplr")),
        "warmup_epochs": IntRange(0, 5),
        "gamma": FloatRange(0.25, 1.0, step=0.25),
        "augmentation": Choices((True, False)),
    }
    assert [parameter.when for parameter in space if parameter.when] == [
        {"scheduler_type": ("cosine",)},
        {"scheduler_type": ("steplr",), "train_split": ("train",)},
    ]


def test_range_outside_the_valid_values_of_its_setting_is_rejected(write):
    with pytest.raises(ConfigurationError) as caught:
        load_search_space(write(DOCUMENTED))
    (problem,) = caught.value.problems
    assert problem.startswith("config.yaml:8: space.gamma.low: found 0; expected a number above 0 and at most 1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rate: {low: 1e-4, high: 1e-2, log: true, step: 1e-3}", "expected no step on a logarithmic"),
        ("learning_rate: {low: 0.1, high: 0.9, step: 1e-320}", "found step 9.99989e-321; expected a number above 0"),
        ("gamma: {low: 0.1, high: 0.9, step: 1e-17}", "at least (high - low) / 2**53; use such a step, or remove step"),
        ("learning_rate: {low: 1e-4, hihg: 1, high: 1e-2}", "did you mean 'high'?"),
        ("learning_rate: 0.1", "or fix the value in 'base' with learning_rate: 0.1"),
        ("learning_rate:", "found nothing (null); expected a list of choices, or a mapping"),
        ("learning_rate: {low: 1e-4, high: 1e-2, when: cosine}", "when: found 'cosine'; expected a mapping"),
        ("batch_size: {low: 1.5, high: 4}", "found 1.5; expected a whole number"),
        ("batch_size: {low: 0, high: 4}", "found 0; expected a whole number from 1"),
        ("batch_size: {low: 16, high: 100, step: 16}", "whole number of steps of 16 from low 16; use high 96"),
        ("batch_size: {low: 16, high: 20, step: 16}", "expected at most high - low; use a smaller step"),
        ("batch_size: {low: 16, high: 32, step: 0.5}", "expected a whole number above 0"),
        ("model_name: [small, medum]", "expected a defined model; did you mean 'medium'?"),
        ("optimizer.type: [adam, adamw]", "unknown setting; use the field name optimizer_type"),
        ("gamma: {low: 0.1, high: 0.2, when: {scheduler: steplr}}", "when.scheduler: unknown setting"),
        ("gamma: {low: 0.1, high: 0.2, when: {loss_type: ctc}}", "in this search space (crossentropy, focal)"),
        ("gamma: {low: 0.1, high: 0.2, when: {step_size: 3}}", "move step_size above gamma"),
    ],
)  # fmt: skip
def test_invalid_parameter_is_rejected(write, line, message, definitions):
    text = f"space:\n  loss_type: [crossentropy, focal]\n  {line}\n  step_size: {{low: 1, high: 9}}\n"
    with pytest.raises(ConfigurationError) as caught:
        load_search_space(write(text), {name: definitions[name] for name in ("small", "medium")})
    (problem,) = caught.value.problems
    assert problem.startswith("config.yaml:3: space.")
    assert message in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space: {}", "space: found an empty mapping"),
        ("base: 5\nspace: {gamma: [0.1, 0.2]}", "base: found 5; expected a mapping"),
        ("base: {num_epochs: '3'}\nspace: {gamma: [0.1, 0.2]}", "base.num_epochs: found '3'"),
        ("base: {monitor: val_loss}\nspace: {gamma: [0.1, 0.2]}", "base.monitor: unknown setting"),
        ("base: {train_split: a}\nspace: {gamma: [0.1, 0.2]}", "is the same for the whole study"),
        ("base: {output_dir: a}\nspace: {gamma: [0.1, 0.2]}", "is set by --output-dir"),
    ],
)  # fmt: skip
def test_file_with_the_wrong_structure_is_rejected(write, text, message):
    with pytest.raises(ConfigurationError) as caught:
        load_search_space(write(text))
    (problem,) = caught.value.problems
    assert message in problem


def test_invalid_fixed_setting_is_reported_only_once(write, definitions):
    text = (
        "base: {min_lr: high, loss_type: mse}\nspace: {model_name: [small, ctc], learning_rate: {low: 1e-3, high: 0.1}}"
    )
    with pytest.raises(ConfigurationError) as caught:
        load_search_space(write(text), definitions)
    assert [problem.split(": found")[0] for problem in caught.value.problems] == [
        "config.yaml:1: base.min_lr",
        "config.yaml:1: base.loss_type",
    ]


def test_condition_can_use_the_value_of_a_setting_that_is_not_sampled():
    data = {
        "model_name": ["small", "ctc"],
        "loss_type": {"choices": ["crossentropy", "focal"], "when": {"model_name": "small"}},
        "gamma": {"low": 0.1, "high": 0.5, "when": {"loss_type": "ctc"}},
    }
    assert [parameter.when for parameter in parse_search_space({"space": data})][2] == {"loss_type": ("ctc",)}


def test_base_can_fix_settings_that_cannot_be_sampled(write):
    text = "base: {num_workers: 0, optimizer_betas: [0.9, 0.99], gamma: 1}\nspace: {patience: {low: 1, high: 3}}"
    assert load_search_space(write(text)).base == {
        "num_workers": 0,
        "optimizer_betas": [0.9, 0.99],
        "gamma": 1.0,
    }


@pytest.mark.parametrize("data", [None, [], "x"])
def test_space_that_is_not_a_mapping_is_rejected(data):
    with pytest.raises(ConfigurationError, match=r"search space: found the type .*; expected a dict; use"):
        parse_search_space(data)
