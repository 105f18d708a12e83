"""Reading images with a trained model, and evaluating the model on a dataset; without PyTorch.

Shapes: N images, height H = 64, width W = 128, L label positions, K characters.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from search_spaces import DataLoaderError
from tuner.data.image_statistics import image_statistics
from tuner.data.images import ImageSource, UserImage, load_user_images
from tuner.data.pixel_cache import CachedSplit, open_pixel_cache
from tuner.data.vocabulary import Vocabulary
from tuner.inference.out_of_distribution import OODDetector
from tuner.training.confusion_counts import Counts, count_confusions

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


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
        loss: Mean of the loss function with which the model was trained; None for an exported model.
        by_length: Accuracies keyed by number of characters, in ascending order.
        by_font: Accuracies keyed by font name, in order of name; the name is empty for images without a font.
        confusion: Confusion matrix, ``(K + 1, K + 1)``, as returned by `count_confusions`.
    """

    loss: float | None
    by_length: dict[int, Accuracies]
    by_font: dict[str, Accuracies]
    confusion: Counts


class PixelReadings(NamedTuple):
    """The readings of N images: label sequences `(N, L)`, confidences and TTA confidences `(N,)`."""

    rows: Rows
    confidence: Floats
    tta_confidence: Floats


class Reader(ABC):
    """A trained model that reads images; `tuner.load_reader` loads it.

    Attributes:
        vocabulary: The characters that the model reads, and their maximum number in a label.
        ood_detector: Flags readings.
        batch_size: Maximum number of images that `read` passes to the model together.
    """

    batch_size: int

    def __init__(self, vocabulary: Vocabulary, ood_detector: OODDetector) -> None:
        self.vocabulary = vocabulary
        self.ood_detector = ood_detector

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
        batches = load_user_images(images, self.batch_size)
        return [reading for images in batches for reading in self._read_batch(images)]

    @abstractmethod
    def read_pixels(self, pixels: npt.NDArray[np.uint8]) -> PixelReadings:
        """Read grey pixels ``(N, H, W)``."""

    @abstractmethod
    def score(self, split: CachedSplit) -> tuple[Rows, float | None]:
        """Read the images of a split; return the label sequences ``(N, L)`` and the mean loss, None if unknown.

        The labels of the split must be encoded by the vocabulary of the model.
        """

    def _read_batch(self, images: list[UserImage]) -> list[Reading]:
        readings = [Reading(image.path, "", 0.0, problem=image.problem) for image in images]
        readable = {number: image.pixels for number, image in enumerate(images) if image.pixels is not None}
        if not readable:
            return readings
        pixels = np.stack(list(readable.values()))
        results = zip(readable, *self.read_pixels(pixels), image_statistics(pixels), strict=True)
        for number, row, confidence, tta_confidence, statistics in results:
            image = images[number]
            flags = self.ood_detector.flags(row, tta_confidence, image.aspect_ratio, statistics)
            readings[number] = Reading(image.path, self.vocabulary.decode(row.tolist()), float(confidence), flags)
        return readings


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
    rows, loss = reader.score(cached)
    is_counted = cached.labels != reader.vocabulary.special.pad
    is_correct = rows == cached.labels

    def accuracies(selected: Any) -> Accuracies:
        counted, correct = is_counted[selected], is_correct[selected]
        return Accuracies(
            samples=len(counted),
            char_accuracy=int((correct & counted).sum()) / max(1, int(counted.sum())),
            seq_accuracy=int((correct | ~counted).all(1).sum()) / max(1, len(counted)),
        )

    return Evaluation(
        **vars(accuracies(slice(None))),
        loss=loss,
        by_length={int(length): accuracies(cached.lengths == length) for length in np.unique(cached.lengths)},
        by_font={
            name: accuracies(cached.font_numbers == number)
            for name, number in sorted((name, number) for number, name in enumerate(cached.font_names))
        },
        confusion=count_confusions(rows, cached.labels, reader.vocabulary.size),
    )
