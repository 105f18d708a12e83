import pytest

from search_spaces import (
    ConfigurationError,
    TrainingConfig,
    definition_changes,
    definitions_yaml,
    fit_loss,
    load_model_definitions,
)


def test_default_file_has_the_documented_models():
    definitions = load_model_definitions("config/model_config.yaml")
    assert list(definitions) == ["small", "medium", "large", "ctc"]
    assert {name: model.decoder for name, model in definitions.items()} == {
        "small": "attention",
        "medium": "attention",
        "large": "attention",
        "ctc": "ctc",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1", "models: missing; expected a mapping of model names"),
        ("models: {}", "models: found an empty mapping"),
        ("models: [a]", "models: found the list ['a']"),
        ("models: {a: }", "models.a: found nothing (null)"),
        ("models: {a: {decodr: ctc}}", "models.a.decodr: unknown key; did you mean 'decoder'?"),
        (
            "models: {a: {decoder: ctc, stage_channels: []}}",
            "models.a.stage_channels: found the list []; expected a list of 1 to 4 values",
        ),
        (
            "models: {a: {stem_channels: [8]}}",
            "models.a.stem_channels: found the list [8]; expected a list of 2 values",
        ),
    ],
)
def test_invalid_file_is_rejected(write, text, message):
    with pytest.raises(ConfigurationError) as caught:
        load_model_definitions(write(text))
    assert any(message in problem for problem in caught.value.problems)


def test_missing_file_raises_file_not_found_error():
    with pytest.raises(FileNotFoundError, match="did you mean"):
        load_model_definitions("config/model_confg.yaml")


@pytest.mark.parametrize(
    ("model", "loss", "smoothing", "fitted"),
    [
        ("ctc", "crossentropy", 0.1, ("ctc", 0.0)),
        ("ctc", "focal", 0.0, ("ctc", 0.0)),
        ("ctc", "ctc", 0.1, ("ctc", 0.0)),
        ("small", "ctc", 0.1, ("crossentropy", 0.1)),
        ("small", "crossentropy", 0.1, ("crossentropy", 0.1)),
        ("small", "focal", 0.1, ("focal", 0.1)),
        ("unknown", "ctc", 0.1, ("ctc", 0.1)),
    ],
)
def test_unsupported_loss_is_replaced(model, loss, smoothing, fitted, definitions):
    config = TrainingConfig(model_name=model, loss_type=loss, label_smoothing=smoothing, batch_size=7)
    expected = TrainingConfig(model_name=model, loss_type=fitted[0], label_smoothing=fitted[1], batch_size=7)
    assert fit_loss(config, definitions) == expected


def test_only_changes_of_models_in_both_definitions_are_listed(definitions):
    wider = definitions["small"].model_copy(update={"width": 96, "stem_channels": (8, 32)})
    new = {"mine": wider, "small": wider, "medium": definitions["medium"]}
    assert definition_changes(definitions, new) == [
        "model 'small': stem_channels was [16, 32] and is [8, 32] now",
        "model 'small': width was 64 and is 96 now",
    ]
    assert definition_changes(definitions, definitions) == []


@pytest.mark.parametrize(
    "name",
    [
        "ខ្មែរ",
        "two words",
        "1e3",
        "1e-3",
        "010",
        "yes",
        "null",
        "2020-01-01",
        "1:30",
        "",
        "<<",
        "=",
        "a: b",
        "#",
        "'\"\x85\x07",
    ],
)
def test_definitions_are_read_back_from_yaml(write, name, definitions):
    named = {"z": definitions["ctc"], name: definitions["large"], **definitions}
    text = definitions_yaml(named)
    read = load_model_definitions(write(text))
    assert list(read.items()) == list(named.items())


def test_definitions_are_written_in_a_readable_format(definitions):
    lines = definitions_yaml({"ខ្មែរ": definitions["ctc"]}).splitlines()
    assert lines == [
        "# The model definitions of this study.",
        "models:",
        "  ខ្មែរ:",
        "    decoder: ctc",
        "    stem_channels: [16, 32]",
        "    stage_channels: [48, 80]",
        "    blocks_per_stage: 1",
        "    width: 128",
        "    context_layers: 1",
    ]
