"""Model definitions: the networks that experiments can use, by default those of ``config/model_config.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from search_spaces.diagnostics.diagnostics import Diagnostics, nearest
from search_spaces.diagnostics.validation import Section, validated
from search_spaces.diagnostics.wording import changes
from search_spaces.training_config import TrainingConfig
from search_spaces.yaml_reader.file import YamlDocument, load_yaml, resolve_config_path
from search_spaces.yaml_reader.nodes import yaml_text

Width = Annotated[int, Field(ge=1, le=4096)]
Count = Annotated[int, Field(ge=0, le=16)]
# The loss functions that each decoder supports, the default first. `tuner.models.decoders` implements the decoders.
LOSSES_OF_DECODER: Mapping[str, tuple[str, ...]] = {"attention": ("crossentropy", "focal"), "ctc": ("ctc",)}
if TYPE_CHECKING:
    DecoderName = str
    LossName = str
else:
    DecoderName = Literal[*LOSSES_OF_DECODER]
    LossName = Literal[*chain.from_iterable(LOSSES_OF_DECODER.values())]
_FROM_LIST = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
_OLDER_SECTIONS = ("cnn", "rnn", "seq2seq", "attention", "encoder", "decoder", "model_presets")


class ModelDefinition(Section):
    """The architecture of one network.

    Attributes:
        decoder: ``attention`` attends to one character after the other; ``ctc`` labels image columns.
        stem_channels: Output channels of the first two convolutions; each halves height and width.
        stage_channels: Output channels of one to four stages; each halves the height.
        blocks_per_stage: Residual blocks in each stage.
        width: Features per image column after the convolutions.
        context_layers: Layers that exchange information between image columns.
    """

    decoder: DecoderName
    stem_channels: Annotated[tuple[Width, ...], _FROM_LIST, Field(min_length=2, max_length=2, examples=[[16, 32]])]
    stage_channels: Annotated[tuple[Width, ...], _FROM_LIST, Field(min_length=1, max_length=4, examples=[[48, 80]])]
    blocks_per_stage: Count = 1
    width: Annotated[Width, Field(examples=[128])]
    context_layers: Count = 1

    @property
    def losses(self) -> tuple[str, ...]:
        """The names of the loss functions that the model supports; the first one is the default."""
        return LOSSES_OF_DECODER[self.decoder]


def load_model_definitions(path: str | Path, named_in: Path | None = None) -> dict[str, ModelDefinition]:
    """Read and validate a model definitions file.

    Args:
        path: The file, resolved by `resolve_config_path`.
        named_in: The experiments file that refers to the definitions file; None if no file does.

    Returns:
        The definitions, keyed by model name, in the file's order.

    Raises:
        FileNotFoundError: The file does not exist.
        yaml.YAMLError: The file is not YAML.
        ConfigurationError: The file is not a valid definitions file; all problems are reported together.
    """
    document = load_yaml(resolve_config_path(path, named_in))
    diagnostics = Diagnostics(document)
    definitions = {
        str(name): definition
        for name, data in _entries(document, diagnostics).items()
        if (definition := _definition(name, data, diagnostics)) is not None
    }
    diagnostics.raise_errors()
    return definitions


def fit_loss(config: TrainingConfig, definitions: Mapping[str, ModelDefinition]) -> TrainingConfig:
    """Return the configuration with a loss function that its model supports.

    The model's default loss function replaces an unsupported one. Label smoothing is set to 0 if the model does not
    support cross-entropy. If the model is not defined, the configuration is returned unchanged.

    A search evaluates the conditions of its parameters on the fitted configuration. It continues to sample with the
    original loss function, because the model may be sampled later.
    """
    model = definitions.get(config.model_name)
    if model is None:
        return config
    return replace(
        config,
        loss_type=config.loss_type if config.loss_type in model.losses else model.losses[0],
        label_smoothing=config.label_smoothing if "crossentropy" in model.losses else 0.0,
    )


def definition_changes(old: Mapping[str, ModelDefinition], new: Mapping[str, ModelDefinition]) -> list[str]:
    """Return a text for each difference between models of the same name; ignore added and removed models."""
    return [
        change
        for name, definition in old.items()
        if name in new
        for change in changes(definition.model_dump(), new[name].model_dump(), f"model {name!r}: ")
    ]


def definitions_yaml(definitions: Mapping[str, ModelDefinition]) -> str:
    """Format definitions as YAML, which `load_model_definitions` reads back unchanged and in the same order.

    Defaults are included, because a later version may have other defaults.
    """
    models = {name: definition.model_dump(mode="json") for name, definition in definitions.items()}
    return f"# The model definitions of this study.\n{yaml_text({'models': models})}"


def _entries(document: YamlDocument, diagnostics: Diagnostics) -> dict[object, object]:
    data = document.data
    if "models" not in data:
        diagnostics.error(*_no_models(data))
        return {}
    models = data["models"]
    if isinstance(models, dict) and models:
        return models
    diagnostics.invalid_value("models", models, _EXPECTED, f"use, for example, {_EXAMPLE}")
    return {}


_EXPECTED = "expected a mapping of model names to definitions"
_EXAMPLE = "'models: {mine: {decoder: attention, stem_channels: [16, 32], stage_channels: [48, 64], width: 96}}'"


def _no_models(data: Mapping[object, object]) -> tuple[tuple[str, ...], str]:
    """Return the path and the text of the error about a file without the key ``models``."""
    older = data.get("model")
    if isinstance(older, dict) and any(section in older for section in _OLDER_SECTIONS):
        return ("model",), (
            "found an older format (one network with cnn and rnn sections), which is not supported; "
            f"use, for example, {_EXAMPLE}, or set 'model.config_path' to another file"
        )
    if "experiments" in data:
        return (), "found an experiments file; expected the key 'models'; set 'model.config_path' to another file"
    near = nearest("models", [str(key) for key in data])
    remedy = f"found the key {near!r}: did you mean 'models'?" if near else f"use, for example, {_EXAMPLE}"
    return ("models",), f"missing; {_EXPECTED}; {remedy}"


def _definition(name: object, data: object, diagnostics: Diagnostics) -> ModelDefinition | None:
    if not isinstance(name, str):
        diagnostics.error(
            ("models", str(name)), f"found a model name that is not text; put the name in quotes: '{name}'"
        )
        return None
    return validated(ModelDefinition, data, diagnostics.below("models", name))
