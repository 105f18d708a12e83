from __future__ import annotations

from typing import Any

import pytest

from search_spaces import ConfigurationError, definitions_digest, load_model_definitions


def test_shipped_file_has_the_documented_models() -> None:
    definitions = load_model_definitions("config/model_config.yaml")
    assert list(definitions) == ["small", "medium", "large", "ctc"]
    assert {name: model.decoder for name, model in definitions.items()} == {
        "small": "attention",
        "medium": "attention",
        "large": "attention",
        "ctc": "ctc",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "model: {cnn: {type: resnet18}, rnn: {}}",
            "config.yaml:1: model: this is an older model_config.yaml",
        ),
        ("model: {name: x}", "did you write 'model' instead?"),
        ("experiments: {}", "this is an experiments file"),
        ("a: 1", "models: missing; a mapping of model names"),
        ("models: ", "models: found nothing (null)"),
        ("models: {}", "models: found an empty mapping"),
        ("models: [a]", "models: found the list ['a']"),
        ("models: {a: }", "models.a: found nothing (null)"),
        ("models: {1: {}}", "a model's name is text; put it in quotes: '1'"),
        ("models: {a: {decodr: ctc}}", "models.a.decodr: unknown key; did you mean 'decoder'?"),
        (
            "models: {a: {decoder: ctc, stage_channels: []}}",
            "models.a.stage_channels: found the list []; a list of 1 to 4",
        ),
        ("models: {a: {stem_channels: [8]}}", "models.a.stem_channels: found the list [8]; a list of 2"),
    ],
)
def test_refused_files(write: Any, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_model_definitions(write(text))
    assert any(says in problem for problem in caught.value.problems)


def test_missing_file_is_python_s_own_error() -> None:
    with pytest.raises(FileNotFoundError, match="did you mean"):
        load_model_definitions("config/model_confg.yaml")


def test_digest_follows_the_named_models_only() -> None:
    definitions = load_model_definitions("config/model_config.yaml")
    digest = definitions_digest(definitions, ["small", "medium"])
    assert digest == definitions_digest(definitions, ["medium", "small", "small"])
    assert digest != definitions_digest(definitions, ["small", "large"])
    changed = {**definitions, "large": definitions["small"]}
    assert digest == definitions_digest(changed, ["small", "medium"])
    changed = {**definitions, "medium": definitions["large"]}
    assert digest != definitions_digest(changed, ["small", "medium"])
    with pytest.raises(KeyError):
        definitions_digest(definitions, ["none"])
