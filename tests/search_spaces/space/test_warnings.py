"""Warnings about valid settings of a search space that have no effect or are probably a mistake."""

import pytest

from search_spaces import load_search_space
from search_spaces.space.file import parse_search_space


@pytest.mark.parametrize(
    ("text", "location", "message"),
    [
        (
            "base: {loss_type: crossentropy}\nspace: {focal_gamma: {low: 0, high: 3, when: {loss_type: focal}}}",
            "config.yaml:2: space.focal_gamma.when.loss_type",
            "never true, because loss_type is crossentropy in 'base'; focal_gamma is never sampled",
        ),
        (
            "base: {scheduler_type: cosine}\nspace:\n  gamma: {low: 0.1, high: 0.3}",
            "config.yaml:3: space.gamma",
            "has no effect: only scheduler_type steplr uses this setting, but scheduler_type is [cosine]",
        ),
        (
            "base:\n  factor: 0.2\nspace: {scheduler_type: [cosine, steplr]}",
            "config.yaml:2: base.factor",
            "only scheduler_type plateau uses this setting, but scheduler_type is [cosine, steplr]",
        ),
        (
            "base: {loss_type: focal}\nspace: {label_smoothing: {low: 0, high: 0.1}}",
            "config.yaml:2: space.label_smoothing",
            "only loss_type crossentropy uses this setting, but loss_type is [focal]",
        ),
        ("space: {learning_rate: [1e-4, 1e-2]}", "config.yaml:1: space.learning_rate", "{low: 0.0001, high: 0.01}"),
        (
            "base: {num_epochs: 10}\nspace: {warmup_epochs: {low: 0, high: 10}}",
            "config.yaml:2: space.warmup_epochs",
            "10 is too long for 10 epochs: training ends before the cosine starts; use a smaller value",
        ),
        (
            "base: {num_epochs: 10, early_stopping_patience: 9}\nspace: {gamma: [0.1, 0.2]}",
            "config.yaml:1: base.early_stopping_patience",
            "9 is too long for 10 epochs: training ends before it can stop early; use a smaller value",
        ),
        (
            "base: {num_epochs: 10}\nspace: {step_size: {low: 4, high: 12}}",
            "config.yaml:2: space.step_size",
            "12 is too long for 10 epochs: training ends before gamma has an effect; use a smaller value",
        ),
        (
            "base: {num_epochs: 10}\nspace: {patience: {low: 4, high: 8}}",
            "config.yaml:2: space.patience",
            "8 is too long for 10 epochs: training ends before factor has an effect; use a smaller value",
        ),
    ],
)
def test_setting_without_effect_or_probable_mistake_causes_a_warning(text, location, message, write):
    (warning,) = load_search_space(write(text)).warnings
    assert warning.startswith(f"{location}: ")
    assert message in warning


@pytest.mark.parametrize(
    "text",
    [
        "space: {batch_size: [32, 512], gamma: [0.1, 0.2], focal_gamma: {low: 0, high: 2, when: {loss_type: focal}}}",
        "base: {loss_type: focal}\nspace: {focal_gamma: {low: 0, high: 2, when: {loss_type: focal}}}",
        "base: {num_epochs: 10}\nspace: {warmup_epochs: {low: 0, high: 9}, step_size: {low: 1, high: 9}}",
    ],
)
def test_setting_with_effect_causes_no_warning(text, write):
    assert load_search_space(write(text)).warnings == ()


def test_default_space_has_no_warnings_and_equality_ignores_warnings(write):
    assert load_search_space("config/search_space.yaml").warnings == ()
    space = load_search_space(write("space: {learning_rate: [1e-4, 1e-2]}"))
    assert parse_search_space(space.as_dict()) == space
