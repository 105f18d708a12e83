"""When a reading is not to be trusted: judged by what the same model read in the validation images.

A network reads something in anything. What is rarer than nearly all that it was validated on is marked as doubtful.

Shapes: N validation images, R of them read right, L label positions, K numbers that describe a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data.vocabulary import EOS, MAX_DIGITS, decode_label
from tuner.inference.usual_looks import ImageStatisticsModel

LEAST_IMAGES = 100  # fewer say nothing about one in a hundred
# Shares of right validation readings that would be doubted: for their confidence, their looks, or both together.
DOUBTED_CONFIDENCE = 0.005
DOUBTED_LOOKS = 0.002
DOUBTED_TOGETHER = 0.01
DOUBTED_ASPECT_RATIOS = 0.005  # at either end
# Digits squeezed or stretched by a quarter are read nearly as well as others, by half only every second image.
ASPECT_MARGIN = 1.25

_WITHOUT_MEASURE = 0.5  # a confidence below it says itself that the reading is more likely wrong than right

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OODDetector:
    """What a model has been validated on, and so can be trusted with.

    Confidence alone finds only some pictures without text (Hendrycks and Gimpel 2017,
    https://arxiv.org/abs/1610.02136), so looks count too, and both together by Fisher's method, which adds the
    logarithms of how rare each is: a picture may be a little odd, or its reading a little uncertain, but not both.

    Attributes:
        confidences: Of right validation readings, ascending, ``(R,)``.
        distances: Of the looks of these images from usual ones, ascending, ``(R,)``.
        looks: Measures such distances.
        least_confidence: Readings below it are doubtful.
        most_distance: Looks beyond it are doubtful.
        most_rarity: Readings beyond it are doubtful, by confidence and looks together.
        aspect_ratios: Pictures narrower than the first or wider than the second (width by height) are doubtful.
    """

    confidences: Floats
    distances: Floats
    looks: ImageStatisticsModel
    least_confidence: float
    most_distance: float
    most_rarity: float
    aspect_ratios: tuple[float, float]

    @classmethod
    def of(cls, validation: Mapping[str, Any]) -> OODDetector:
        """Draw the limits from what a checkpoint keeps of the validation images.

        With few images read right, a confidence below one half is doubtful, and looks are not judged.

        Args:
            validation: ``rows`` and ``labels`` ``(N, L)``, ``confidence`` and ``aspect_ratios`` ``(N,)``,
                ``image_statistics`` ``(N, K)``; tensors or arrays.
        """
        kept = {name: np.asarray(values) for name, values in validation.items()}
        right = (kept["rows"] == kept["labels"]).all(1)
        usual = ImageStatisticsModel.of(kept["image_statistics"])
        confidence, distance = kept["confidence"][right].astype(float), usual.distances(kept["image_statistics"][right])
        confidences, distances = np.sort(confidence), np.sort(distance)
        rarity = _rarity(confidence, distance, confidences, distances)
        low, high = np.quantile(kept["aspect_ratios"], [DOUBTED_ASPECT_RATIOS, 1 - DOUBTED_ASPECT_RATIOS])
        enough = len(confidences) >= LEAST_IMAGES
        return cls(
            confidences=confidences,
            distances=distances,
            looks=usual,
            least_confidence=float(np.quantile(confidences, DOUBTED_CONFIDENCE)) if enough else _WITHOUT_MEASURE,
            most_distance=float(np.quantile(distances, 1 - DOUBTED_LOOKS)) if enough else np.inf,
            most_rarity=float(np.quantile(rarity, 1 - DOUBTED_TOGETHER)) if enough else np.inf,
            aspect_ratios=(float(low) / ASPECT_MARGIN, float(high) * ASPECT_MARGIN),
        )

    def doubts(
        self, row: npt.NDArray[np.int64], confidence: float, aspect_ratio: float, look: Floats
    ) -> tuple[str, ...]:
        """Return why a reading is doubtful, each reason in words; nothing if it is not.

        Args:
            row: The label row that was read, ``(L,)``.
            confidence: Its probability, 0 to 1.
            aspect_ratio: Width by height of the picture before it was resized.
            look: The numbers that describe the picture, ``(K,)``.
        """
        low, high = self.aspect_ratios
        distance = self.looks.distances(look[None])
        rarity = _rarity(np.array([confidence]), distance, self.confidences, self.distances)
        uncertain, odd = confidence < self.least_confidence, bool(distance[0] > self.most_distance)
        reasons = {
            "nothing was read": not decode_label(row.tolist()),
            f"no end was read within {MAX_DIGITS} digits": EOS not in row,
            f"confidence is below {self.least_confidence:.4f}": uncertain,
            f"aspect ratio is {aspect_ratio:.2f}, not {low:.2f} to {high:.2f}": not low <= aspect_ratio <= high,
            "it looks like no validation image": odd,
            "confidence is low for a picture that looks unusual": not uncertain
            and not odd
            and bool(rarity[0] > self.most_rarity),
        }
        return tuple(reason for reason, holds in reasons.items() if holds)


def _rarity(confidence: Floats, distance: Floats, confidences: Floats, distances: Floats) -> Floats:
    """Return how rare readings are by confidence and looks together, ``(M,)``: minus the logarithm of both shares.

    Args:
        confidence: Of the readings, ``(M,)``.
        distance: Of their looks, ``(M,)``.
        confidences: Of right validation readings, ascending, ``(R,)``.
        distances: Of their looks, ascending, ``(R,)``.
    """
    count = len(confidences)
    less_certain = (np.searchsorted(confidences, confidence, "right") + 1) / (count + 1)
    odder = (count - np.searchsorted(distances, distance, "left") + 1) / (count + 1)
    rarity: Floats = -np.log(less_certain) - np.log(odder)
    return rarity
