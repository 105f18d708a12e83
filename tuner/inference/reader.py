"""Reading images with a trained model, and evaluating the model on a dataset.

Shapes: N images, height H = 64, width W = 128, L label positions, K characters.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from search_spaces import ConfigurationError, DataLoaderError, ModelDefinition, TrainingConfig
from search_spaces.training_config import config_from_settings
from tuner.data.batches import VALIDATION_BATCH_SIZE, validation_batches
from tuner.data.image_statistics import image_statistics
from tuner.data.pixel_cache import CachedSplit, open_pixel_cache
from tuner.data.user_images import ImageSource, UserImage, load_user_images
from tuner.data.vocabulary import Vocabulary
from tuner.inference.out_of_distribution import OODDetector
from tuner.models import OCRNetwork, build_model
from tuner.training.checkpoints import WRONG_CONTENT, DamagedCheckpointError, load_checkpoint
from tuner.training.confusion_counts import Counts, count_confusions
from tuner.training.device import amp_dtype, setup_training_environment
from tuner.training.losses import create_loss_function
from tuner.training.out_of_memory import keep_freed_memory
from tuner.training.validation import Accuracy, SplitScore, score_split


@dataclass(frozen=True)
class Reading:
    """The reading of an image.

    Attributes:
        path: The file; None for an image in memory.
        text: The characters; empty if none was read or there is a problem.
        confidence: The model's probability of `text`, 0 to 1: for attention the product over the characters and the
            end mark; for CTC the sum over all alignments of `text` with the image's columns. 0 if there is a problem.
        flags: The reasons why the reading is flagged, as text; empty if it is not flagged or there is a problem.
        problem: Why the image cannot be read, without the path; empty text if it can be read.
    """

    path: Path | None
    text: str
    confidence: float
    flags: tuple[str, ...] = ()
    problem: str = ""

    @property
    def flagged(self) -> bool:
        """Whether the reading may be wrong for one of the reasons in `flags`."""
        return bool(self.flags)


@dataclass(frozen=True)
class Accuracies:
    """The accuracies of a set of readings.

    Attributes:
        samples: Number of images.
        char_accuracy: Fraction of correct label positions up to and including the end mark, 0 to 1.
        seq_accuracy: Fraction of images read without any error, 0 to 1.
    """

    samples: int
    char_accuracy: float
    seq_accuracy: float


@dataclass(frozen=True)
class Evaluation(Accuracies):
    """The accuracies of a model on a split.

    Attributes:
        loss: Mean of the loss function with which the model was trained.
        by_length: Accuracies keyed by number of characters, in ascending order.
        by_font: Accuracies keyed by font name, in order of name; the name is empty for images without a font.
        confusion: Confusion matrix, ``(K + 1, K + 1)``, as returned by `count_confusions`.
    """

    loss: float
    by_length: dict[int, Accuracies]
    by_font: dict[str, Accuracies]
    confusion: Counts


class Reader:
    """A trained model that reads images; `tuner.load_reader` creates it.

    Attributes:
        config: The settings with which the model was trained; only `device` is the device for reading.
        definition: The model definition.
        vocabulary: The characters that the model reads, and their maximum number in a label.
        device: The device for reading.
        ood_detector: Flags readings; None if the checkpoint has no statistics of the validation images.
    """

    def __init__(
        self,
        config: TrainingConfig,
        definition: ModelDefinition,
        vocabulary: Vocabulary,
        weights: Mapping[str, Tensor],
        ood_detector: OODDetector | None,
    ) -> None:
        """Build the network and load its weights.

        Raises:
            ConfigurationError: The configured device is not available.
            RuntimeError: The weights do not match the network.
        """
        self.device, self._use_amp = setup_training_environment(config)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.config = config
        self.definition = definition
        self.vocabulary = vocabulary
        self.ood_detector = ood_detector
        self._model: OCRNetwork = build_model(definition, config)
        self._model.load_state_dict(weights)
        self._model.to(self.device).eval()
        self._loss = create_loss_function(config)

    def read(self, images: ImageSource | Iterable[ImageSource]) -> list[Reading]:
        """Read images of any size and format, in order.

        Args:
            images: One or several of these: the path of an image file; the path of a folder, whose images are read in
                order of name; a PIL image; a NumPy array of one image, grey ``(H, W)``, RGB ``(H, W, 3)`` or RGBA
                ``(H, W, 4)``.

        Returns:
            A reading for each image. If an image cannot be read, its reading has a `problem`; the others are read.
        """
        if isinstance(images, str | os.PathLike | Image.Image | np.ndarray):
            images = [images]
        batches = load_user_images(images, VALIDATION_BATCH_SIZE)
        return [reading for images in batches for reading in self._read_batch(images)]

    def score(self, split: CachedSplit) -> SplitScore:
        """Read a split of a dataset and score the readings, exactly as validation does during training.

        Raises:
            DataLoaderError: The labels have characters or lengths that the model does not read.
        """
        batches = validation_batches(split.encoded_by(self.vocabulary), self.device)
        return score_split(self._model, self._loss, batches, self._autocast)

    @torch.inference_mode()
    def read_pixels(self, pixels: npt.NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor]:
        """Read grey pixels ``(N, H, W)``; return label sequences ``(N, L)``, confidences and TTA confidences ``(N,)``.

        The network computes with the same precision as in training. The returned tensors are on the CPU.
        """
        images = torch.from_numpy(pixels).to(self.device).unsqueeze(1).float() / 255
        with self._autocast():
            scores = self._model(images)
            rows = self._model.read(scores)
            tta_confidence = self._model.tta_confidence(images, scores, rows)
        return rows.cpu(), self._model.confidence(scores, rows).cpu(), tta_confidence.cpu()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=amp_dtype(self.device), enabled=self._use_amp)

    def _read_batch(self, images: list[UserImage]) -> list[Reading]:
        readings = [Reading(image.path, "", 0.0, problem=image.problem) for image in images]
        readable = {number: image.pixels for number, image in enumerate(images) if image.pixels is not None}
        if not readable:
            return readings
        pixels = np.stack(list(readable.values()))
        detector, read = self.ood_detector, (values.numpy() for values in self.read_pixels(pixels))
        results = zip(readable, *read, image_statistics(pixels), strict=True)
        for number, row, confidence, tta_confidence, statistics in results:
            image = images[number]
            flags = detector.flags(row, tta_confidence, image.aspect_ratio, statistics) if detector else ()
            readings[number] = Reading(image.path, self.vocabulary.decode(row.tolist()), float(confidence), flags)
        return readings


def reader_of_checkpoint(checkpoint: str | os.PathLike[str], *, device: str = "auto") -> Reader:
    """Load the model of a checkpoint; the file is verified, and no code in it is executed.

    Args:
        checkpoint: A file that training wrote, for example ``checkpoints/best.pt``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigurationError: The file is missing or damaged, training did not write it, or the device is not available.
    """
    path = Path(checkpoint)
    remedy = "use a checkpoint that training wrote, such as checkpoints/best.pt in an experiment's folder"
    try:
        state = load_checkpoint(path)
        config = config_from_settings(state["config"])
        definition = ModelDefinition.model_validate(state["definition"])
        vocabulary = Vocabulary(tuple(state["characters"]), config.max_sequence_length - 1)
        validation = state.get("validation", {})
        # Checkpoints of earlier versions have no statistics of the validation images.
        detector = OODDetector.of(validation, vocabulary) if "image_statistics" in validation else None
        reader = Reader(replace(config, device=device), definition, vocabulary, state["model"], detector)
        if not all(weights.isfinite().all() for weights in state["model"].values()):
            raise ValueError("its weights are not finite")
        return reader
    except ConfigurationError:
        raise  # the device is not available
    except (OSError, *WRONG_CONTENT) as error:
        text = " ".join(str(getattr(error, "strerror", None) or error).split()).removeprefix(f"{path}: ")
        reasons = {
            FileNotFoundError: "there is no such file",
            KeyError: f"it has no {text}",
            DamagedCheckpointError: text,
        }
        reason = reasons.get(type(error), f"it cannot be used ({text:.300})")
        raise ConfigurationError(f"checkpoint {path}: {reason}; {remedy}") from error


def evaluate_split(reader: Reader, metadata_path: str | os.PathLike[str], split: str) -> Evaluation:
    """Evaluate a model on a split of any dataset, exactly as validation does during training.

    Raises:
        DataLoaderError: The dataset is missing or damaged, or has no such split, or its labels have characters or
            lengths that the model does not read.
    """
    cached = open_pixel_cache(metadata_path, [split])[split]
    try:
        cached = cached.encoded_by(reader.vocabulary)
    except DataLoaderError as error:
        raise DataLoaderError(f"{metadata_path}: split {split!r}: {error}") from error
    score = reader.score(cached)
    rows, labels = score.rows.long(), torch.from_numpy(cached.labels.astype(np.int64))

    def accuracies(selected: Any) -> Accuracies:
        indices = torch.from_numpy(np.flatnonzero(selected))
        accuracy = Accuracy(reader.vocabulary.special.pad)
        accuracy.update(rows[indices], labels[indices])
        return Accuracies(len(indices), accuracy.character_accuracy(), accuracy.sequence_accuracy())

    return Evaluation(
        samples=len(cached),
        loss=score.loss,
        char_accuracy=score.accuracy.character_accuracy(),
        seq_accuracy=score.accuracy.sequence_accuracy(),
        by_length={int(length): accuracies(cached.lengths == length) for length in np.unique(cached.lengths)},
        by_font={
            name: accuracies(cached.font_numbers == number)
            for name, number in sorted((name, number) for number, name in enumerate(cached.font_names))
        },
        confusion=count_confusions(rows.numpy(), cached.labels, reader.vocabulary.size),
    )
