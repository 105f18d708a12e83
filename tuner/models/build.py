"""Construction of the networks that `model_config.yaml` defines."""

from __future__ import annotations

import difflib

import torch

from search_spaces import ModelCreationError, ModelDefinition, TrainingConfig, load_model_definitions
from tuner.data.vocabulary import SPECIAL_SYMBOLS
from tuner.models.network import OCRNetwork
from tuner.seeds import derived_seed


def create_model_from_config(config: TrainingConfig) -> OCRNetwork:
    """Build the model that a configuration selects; its initial weights depend only on the seed.

    Raises:
        ModelCreationError: The model is not defined, or `vocab_size` or `max_sequence_length` is too small.
        FileNotFoundError: The model definitions file `model_config_path` does not exist.
        ConfigurationError: That file is invalid.

    Example::

        import torch
        from tuner import TrainingConfig, create_model_from_config

        model = create_model_from_config(TrainingConfig(model_name="small"))
        scores = model(torch.rand(2, 1, 64, 128))
        print(tuple(scores.shape), sum(parameter.numel() for parameter in model.parameters()))
    """
    least = {"vocab_size": len(SPECIAL_SYMBOLS) + 1, "max_sequence_length": 2}
    problems = [
        f"{field}: found {found!r}; expected a whole number of at least {low}; use that of the dataset"
        for field, low in least.items()
        if type(found := getattr(config, field)) is not int or found < low
    ]
    if problems:
        raise ModelCreationError(problems)
    definitions = load_model_definitions(config.model_config_path)
    if config.model_name not in definitions:
        nearest = difflib.get_close_matches(config.model_name, definitions, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "use one of these, or add this model to the file"
        raise ModelCreationError(
            f"model_name: found {config.model_name!r}; {config.model_config_path} defines "
            f"{', '.join(definitions)}; {hint}"
        )
    return build_model(definitions[config.model_name], config)


def build_model(definition: ModelDefinition, config: TrainingConfig) -> OCRNetwork:
    """Build a model from its definition, without changing the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "weights"))
        model = OCRNetwork(definition, classes=config.vocab_size, positions=config.max_sequence_length)
    # Convolutions of oneDNN and cuDNN are fastest with channels last.
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
