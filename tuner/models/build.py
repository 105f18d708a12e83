"""From a name in `model_config.yaml` to a network."""

from __future__ import annotations

import difflib

import torch

from search_spaces import ModelCreationError, ModelDefinition, TrainingConfig, load_model_definitions
from tuner.data.vocabulary import vocabulary_problems
from tuner.models.reader import DigitReader
from tuner.seeds import derived_seed


def create_model_from_config(config: TrainingConfig) -> DigitReader:
    """Build the model that a configuration names, with weights that depend on its seed alone.

    Raises:
        ModelCreationError: The model definitions have no such model, or `vocab_size` or `max_sequence_length` is not
            that of the dataset.
        FileNotFoundError: There is no model definitions file at `model_config_path`.
        ConfigurationError: That file is not as it should be.
    """
    if problems := vocabulary_problems(config):
        raise ModelCreationError(problems)
    definitions = load_model_definitions(config.model_config_path)
    if config.model_name not in definitions:
        nearest = difflib.get_close_matches(config.model_name, definitions, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "use one of these, or define it there"
        raise ModelCreationError(
            f"model_name: found {config.model_name!r}; {config.model_config_path} defines "
            f"{', '.join(definitions)}; {hint}"
        )
    return build_model(definitions[config.model_name], config)


def build_model(definition: ModelDefinition, config: TrainingConfig) -> DigitReader:
    """Build a model from its definition; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "weights"))
        model = DigitReader(definition, classes=config.vocab_size, positions=config.max_sequence_length)
    # Channels innermost is what oneDNN's and cuDNN's convolutions are fastest on.
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
