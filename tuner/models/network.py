"""The complete model, encoder and decoder, and its construction from a definition in `model_config.yaml`."""

from __future__ import annotations

import difflib

import torch
from torch import Tensor, nn

from search_spaces import ModelCreationError, ModelDefinition, TrainingConfig, load_model_definitions
from tuner.data.augmentation import distorted_copies, normalise
from tuner.data.vocabulary import SPECIAL_SYMBOLS
from tuner.models.decoders import DECODERS
from tuner.models.encoder import ColumnEncoder
from tuner.seeds import derived_seed


class OCRNetwork(nn.Module):
    """Reads the characters in a grey image, from left to right.

    Shapes: N images, H = 64, W = 128, L label positions, C classes, T columns (32).

    Attributes:
        definition: The model definition.
    """

    def __init__(self, definition: ModelDefinition, *, classes: int, positions: int) -> None:
        super().__init__()
        self.definition = definition
        self.encoder = ColumnEncoder(definition)
        self.decoder = DECODERS[definition.decoder](definition.width, positions, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map grey images ``(N, 1, H, W)`` of any value range to scores, ``(N, L, C)`` or, with CTC, ``(N, T, C)``."""
        scores: Tensor = self.decoder(self.encoder(normalise(images)))
        return scores

    def read(self, scores: Tensor) -> Tensor:
        """Map scores to label sequences ``(N, L)``: characters, ``<EOS>``, ``<PAD>``."""
        return self.decoder.read(scores)

    def confidence(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Return the probability of each label sequence of `rows` ``(N, L)``, given its scores: ``(N,)``, 0 to 1."""
        return self.decoder.confidence(scores.float(), rows)

    def tta_confidence(self, images: Tensor, scores: Tensor, rows: Tensor) -> Tensor:
        """Return each label sequence's mean probability over its image and distorted copies of the image: ``(N,)``.

        This is test-time augmentation: a reading that changes under slight distortions is probably wrong, even if its
        confidence is high (Bahat and Shakhnarovich 2018, https://arxiv.org/abs/1804.00657).
        """
        every_score = [scores, *(self(copy) for copy in distorted_copies(images))]
        return torch.stack([self.confidence(each, rows) for each in every_score]).mean(0)


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
