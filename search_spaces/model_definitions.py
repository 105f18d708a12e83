"""Model definitions: the networks that an experiment can name, read from ``model_config.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from search_spaces.diagnostics.diagnostics import Diagnostics, nearest
from search_spaces.diagnostics.diff import changes
from search_spaces.diagnostics.validation import Section, validated
from search_spaces.training_config import TrainingConfig
from search_spaces.yaml_reader.file import YamlDocument, load_yaml, resolve_config_path
from search_spaces.yaml_reader.nodes import yaml_text

Width = Annotated[int, Field(ge=1, le=4096)]
Count = Annotated[int, Field(ge=0, le=16)]
# The losses that models with each decoder can learn with, the default first; `tuner.models.decoders` has the decoders.
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
    """One network, by numbers.

    Attributes:
        decoder: ``attention`` attends to one digit after the other; ``ctc`` labels image columns.
        stem_channels: Channels of the two first convolutions, each of which halves height and width.
        stage_channels: Channels of the one to four stages, each of which halves the height.
        blocks_per_stage: Residual blocks after each halving.
        width: Features of an image column after the convolutions.
        context_layers: Layers that let columns see their neighbours.
    """

    decoder: DecoderName
    stem_channels: Annotated[tuple[Width, ...], _FROM_LIST, Field(min_length=2, max_length=2, examples=[[16, 32]])]
    stage_channels: Annotated[tuple[Width, ...], _FROM_LIST, Field(min_length=1, max_length=4, examples=[[48, 80]])]
    blocks_per_stage: Count = 1
    width: Annotated[Width, Field(examples=[128])]
    context_layers: Count = 1

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses that the model can learn with, the default first."""
        return LOSSES_OF_DECODER[self.decoder]


def load_model_definitions(path: str | Path, named_in: Path | None = None) -> dict[str, ModelDefinition]:
    """Read a model definitions file: a mapping ``models:`` from names to definitions, in the file's order.

    Args:
        path: Looked up as `resolve_config_path` does.
        named_in: The file that names it, if one does.

    Raises:
        FileNotFoundError: If there is no such file.
        yaml.YAMLError: If it is not YAML.
        ConfigurationError: If it has another shape or its definitions are wrong; all problems at once.
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
    """Return the configuration with a loss that its model can learn with.

    A loss that does not suit the model is replaced by the model's default loss. Label smoothing, which only
    cross-entropy uses, is 0 for a model that cannot learn with it. A model that is not defined changes nothing.

    A search evaluates its conditions on the result, but keeps the loss that it sampled or that its base fixes: the
    model may be sampled after it.
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
    """Return in words what differs in the models that both have; models that only one has are no change."""
    return [
        change
        for name, definition in old.items()
        if name in new
        for change in changes(definition.model_dump(), new[name].model_dump(), f"model {name!r}: ")
    ]


def definitions_yaml(definitions: Mapping[str, ModelDefinition]) -> str:
    """Return a YAML text from which `load_model_definitions` reads the same definitions in the same order.

    Every key is written out, also where it has its default: a later version may have another.
    """
    models = {name: definition.model_dump(mode="json") for name, definition in definitions.items()}
    return f"# The networks of a study, as they were when it began.\n{yaml_text({'models': models})}"


def _entries(document: YamlDocument, diagnostics: Diagnostics) -> dict[object, object]:
    data = document.data
    if "models" not in data:
        diagnostics.error(*_no_models(data))
        return {}
    models = data["models"]
    if isinstance(models, dict) and models:
        return models
    diagnostics.invalid_value("models", models, _EXPECTED, f"write, for example, {_EXAMPLE}")
    return {}


_EXPECTED = "a mapping of model names to definitions is expected"
_EXAMPLE = "'mine: {decoder: attention, stem_channels: [16, 32], stage_channels: [48, 64], width: 96}' below it"


def _no_models(data: Mapping[object, object]) -> tuple[tuple[str, ...], str]:
    """Return the path and the text of the error that a file without ``models:`` is."""
    older = data.get("model")
    if isinstance(older, dict) and any(section in older for section in _OLDER_SECTIONS):
        return ("model",), (
            "this is an older model_config.yaml (one network, given by its cnn and rnn parts), which this "
            f"program does not build; write a file with 'models:' and {_EXAMPLE}, "
            "or name another file under model: config_path:"
        )
    if "experiments" in data:
        return (), "this is an experiments file; model.config_path needs a model definitions file with 'models:'"
    near = nearest("models", [str(key) for key in data])
    remedy = f"did you write {near!r} instead?" if near else f"write 'models:' and {_EXAMPLE}"
    return ("models",), f"missing; {_EXPECTED}; {remedy}"


def _definition(name: object, data: object, diagnostics: Diagnostics) -> ModelDefinition | None:
    if not isinstance(name, str):
        diagnostics.error(("models", str(name)), f"a model's name is text; put it in quotes: '{name}'")
        return None
    return validated(ModelDefinition, data, diagnostics.below("models", name))
