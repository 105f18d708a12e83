"""Settings of a search space that are legal but can never act, or are hardly meant."""

from __future__ import annotations

from typing import Any

import pytest

from search_spaces import load_search_space
from search_spaces.space.file import parse_search_space


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        (
            "base: {loss_type: crossentropy}\nspace: {focal_gamma: {low: 0, high: 3, when: {loss_type: focal}}}",
            "config.yaml:2: space.focal_gamma.when.loss_type",
            "never holds, since loss_type is crossentropy under base:; focal_gamma can never act",
        ),
        (
            "base: {scheduler_type: cosine}\nspace:\n  gamma: {low: 0.1, high: 0.3}",
            "config.yaml:3: space.gamma",
            "can never act: only scheduler_type steplr looks at it, and the space gives [cosine]",
        ),
        (
            "base:\n  factor: 0.2\nspace: {scheduler_type: [cosine, steplr]}",
            "config.yaml:2: base.factor",
            "only scheduler_type plateau looks at it, and the space gives [cosine, steplr]",
        ),
        (
            "base: {loss_type: focal}\nspace: {label_smoothing: {low: 0, high: 0.1}}",
            "config.yaml:2: space.label_smoothing",
            "only loss_type crossentropy looks at it, and the space gives [focal]",
        ),
        ("space: {learning_rate: [1e-4, 1e-2]}", "config.yaml:1: space.learning_rate", "{low: 0.0001, high: 0.01}"),
        (
            "base: {num_epochs: 10}\nspace: {warmup_epochs: {low: 0, high: 10}}",
            "config.yaml:2: space.warmup_epochs",
            "10 of 10 epochs can never act: the warm-up never ends",
        ),
        (
            "base: {num_epochs: 10, early_stopping_patience: 9}\nspace: {gamma: [0.1, 0.2]}",
            "config.yaml:1: base.early_stopping_patience",
            "9 of 10 epochs can never act: it can never stop early",
        ),
        (
            "base: {num_epochs: 10}\nspace: {step_size: {low: 4, high: 12}}",
            "config.yaml:2: space.step_size",
            "12 of 10",
        ),
        ("base: {num_epochs: 10}\nspace: {patience: {low: 4, high: 8}}", "config.yaml:2: space.patience", "8 of 10"),
    ],
)
def test_what_is_senseless_is_told(text: str, place: str, says: str, write: Any) -> None:
    (warning,) = load_search_space(write(text)).warnings
    assert warning.startswith(f"{place}: ")
    assert says in warning


@pytest.mark.parametrize(
    "text",
    [
        "space: {batch_size: [32, 512], gamma: [0.1, 0.2], focal_gamma: {low: 0, high: 2, when: {loss_type: focal}}}",
        "base: {loss_type: focal}\nspace: {focal_gamma: {low: 0, high: 2, when: {loss_type: focal}}}",
        "base: {num_epochs: 10}\nspace: {warmup_epochs: {low: 0, high: 9}, step_size: {low: 1, high: 9}}",
    ],
)
def test_what_can_act_is_left_alone(text: str, write: Any) -> None:
    assert load_search_space(write(text)).warnings == ()


def test_the_shipped_space_makes_sense_and_warnings_are_no_part_of_a_space(write: Any) -> None:
    assert load_search_space("config/search_space.yaml").warnings == ()
    space = load_search_space(write("space: {learning_rate: [1e-4, 1e-2]}"))
    assert parse_search_space(space.as_dict()) == space
