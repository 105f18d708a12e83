"""Reading images with a trained model, and measuring how well it reads a dataset.

Shapes: N images, H = 64, W = 128, L = 9 label positions.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor

from search_spaces import ConfigurationError, ModelDefinition, TrainingConfig
from tuner.data.batches import VALIDATION_BATCH_SIZE, SplitBatches, validation_batches
from tuner.data.pictures import Picture, load_pictures
from tuner.data.pixel_cache import open_pixel_cache
from tuner.data.vocabulary import decode_label
from tuner.models import DigitReader, build_model
from tuner.models.confidence import attention_confidence, ctc_confidence
from tuner.training.checkpoints import DamagedCheckpointError, load_checkpoint
from tuner.training.environment import amp_dtype, setup_training_environment
from tuner.training.losses import create_loss_function
from tuner.training.metrics import Accuracy


@dataclass(frozen=True)
class Reading:
    """What was read in an image file.

    Attributes:
        path: The file.
        text: Khmer digits, in general 1 to 8; empty if none were seen or there is a problem.
        confidence: The probability, 0 to 1, that the model gives to `text`: for attention the product over the read
            characters and the end mark; for CTC the sum over all ways to spell `text` along the image's columns.
            0 if there is a problem.
        problem: Why the file could not be read, without its path; empty if it could.
    """

    path: Path
    text: str
    confidence: float
    problem: str = ""


@dataclass(frozen=True)
class Accuracies:
    """How right some readings are.

    Attributes:
        samples: Number of images.
        char_accuracy: Share of right label positions up to and including the end mark, 0 to 1.
        seq_accuracy: Share of images read without any error, 0 to 1.
    """

    samples: int
    char_accuracy: float
    seq_accuracy: float


@dataclass(frozen=True)
class Evaluation(Accuracies):
    """How well a model reads a split.

    Attributes:
        loss: Mean loss, of the kind that the model was trained with.
        by_length: Accuracies by number of digits, ascending.
        by_font: Accuracies by font, in the order of their names; images without one are under an empty name.
    """

    loss: float
    by_length: dict[int, Accuracies]
    by_font: dict[str, Accuracies]


class Reader:
    """A trained model, ready to read; made by `load_reader`.

    Attributes:
        config: What it was trained with, and the device that it is on.
        definition: The network.
        device: Where it computes.
    """

    def __init__(self, config: TrainingConfig, definition: ModelDefinition, weights: Mapping[str, Tensor]) -> None:
        """Build the network with its weights.

        Raises:
            ConfigurationError: The configured device is not there.
            RuntimeError: The weights are another network's.
        """
        self.device, self._use_amp = setup_training_environment(config)
        self.config = config
        self.definition = definition
        self._model: DigitReader = build_model(definition, config)
        self._model.load_state_dict(weights)
        self._model.to(self.device).eval()

    def read_files(self, paths: Iterable[str | os.PathLike[str]]) -> list[Reading]:
        """Read image files of any size and kind, in order; of a folder the images in it, sorted by name.

        A file that cannot be read has a `problem` and does not keep the others from being read.
        """
        batches = load_pictures(paths, VALIDATION_BATCH_SIZE)
        return [reading for pictures in batches for reading in self._read_pictures(pictures)]

    @torch.inference_mode()
    def scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and label rows ``(N, L)`` of grey images ``(N, 1, H, W)`` on the reader's device.

        They are computed as in training, in the same precision.
        """
        with torch.autocast(self.device.type, dtype=amp_dtype(self.device), enabled=self._use_amp):
            scores = self._model(images)
        return scores, self._model.read(scores)

    def _read_pictures(self, pictures: list[Picture]) -> list[Reading]:
        pixels = [picture.pixels for picture in pictures if picture.pixels is not None]
        texts = iter(self._read_pixels(np.stack(pixels)) if pixels else [])
        readings = []
        for picture in pictures:
            text, confidence = ("", 0.0) if picture.pixels is None else next(texts)
            readings.append(Reading(picture.path, text, confidence, picture.problem))
        return readings

    def _read_pixels(self, pixels: npt.NDArray[np.uint8]) -> list[tuple[str, float]]:
        images = torch.from_numpy(pixels).to(self.device).unsqueeze(1).float() / 255
        scores, rows = self.scores(images)
        confidence = ctc_confidence if self.definition.decoder == "ctc" else attention_confidence
        certain = confidence(scores.float(), rows)
        return list(zip(map(decode_label, rows.tolist()), certain.tolist(), strict=True))


def load_reader(checkpoint: str | os.PathLike[str], *, device: str = "auto") -> Reader:
    """Load the model of a checkpoint; the file is checked, and nothing in it is executed.

    Args:
        checkpoint: A file that training wrote, for example ``checkpoints/best.pt``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigurationError: The file is missing, damaged or not such a checkpoint, or the device is not there.
    """
    path = Path(checkpoint)
    state = _load_state(path)
    try:
        known = {item.name for item in fields(TrainingConfig)}
        config = TrainingConfig(**{name: value for name, value in state["config"].items() if name in known})
        definition = ModelDefinition.model_validate(state["definition"])
        return Reader(replace(config, device=device), definition, state["model"])
    except ConfigurationError:
        raise  # the device
    except KeyError as missing:
        raise ConfigurationError(f"checkpoint {path}: it has no {missing}; name a best.pt of this program") from missing
    except ValidationError as error:
        raise ConfigurationError(
            f"checkpoint {path}: this version cannot build its network; use the version that trained it"
        ) from error
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"checkpoint {path}: its weights do not fit the network that it describes; name another file"
        ) from error


def evaluate_split(reader: Reader, metadata_path: str | os.PathLike[str], split: str) -> Evaluation:
    """Score a model on a split of any dataset, exactly as validation does during training.

    Raises:
        DataLoaderError: The dataset is missing or damaged, or has no such split.
    """
    cached = open_pixel_cache(metadata_path, [split])[split]
    loss, rows = _read_batches(reader, validation_batches(cached, reader.device))
    labels = torch.from_numpy(cached.labels.astype(np.int64))

    def accuracies(chosen: Any) -> Accuracies:
        picked = torch.from_numpy(np.flatnonzero(chosen))
        accuracy = Accuracy()
        accuracy.update(rows[picked], labels[picked])
        return Accuracies(len(picked), accuracy.character_accuracy(), accuracy.sequence_accuracy())

    whole = accuracies(np.ones(len(cached), bool))
    return Evaluation(
        samples=whole.samples,
        loss=loss,
        char_accuracy=whole.char_accuracy,
        seq_accuracy=whole.seq_accuracy,
        by_length={int(length): accuracies(cached.lengths == length) for length in np.unique(cached.lengths)},
        by_font={
            name: accuracies(cached.font_numbers == number)
            for name, number in sorted((name, number) for number, name in enumerate(cached.font_names))
        },
    )


def _read_batches(reader: Reader, batches: SplitBatches) -> tuple[float, Tensor]:
    """Return the mean loss and all label rows ``(N, L)``, on the CPU."""
    loss = create_loss_function(reader.config)
    total = count = 0.0
    rows = []
    for images, labels in batches.epoch(0):
        scores, read = reader.scores(images)
        weight = float(loss.count(labels))
        total, count = total + float(loss(scores, labels)) * weight, count + weight
        rows.append(read.cpu())
    return total / count, torch.cat(rows)


def _load_state(path: Path) -> dict[str, Any]:
    remedy = "name a checkpoint that training wrote, such as checkpoints/best.pt in an experiment's folder"
    try:
        state = load_checkpoint(path)
    except FileNotFoundError:
        raise ConfigurationError(f"checkpoint {path}: there is no such file; {remedy}") from None
    except OSError as error:
        raise ConfigurationError(f"checkpoint {path}: it cannot be read: {error.strerror or error}") from error
    except DamagedCheckpointError as error:
        raise ConfigurationError(f"checkpoint {error}; {remedy}") from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, EOFError) as error:
        raise ConfigurationError(f"checkpoint {path}: PyTorch cannot load it: {error}; {remedy}") from error
    if not isinstance(state, dict):
        raise ConfigurationError(f"checkpoint {path}: it holds no model; {remedy}")
    return state
