"""Flags readings that are unlike nearly all that the same model read in its validation images.

A network reads digits in any image, and is confident in designs that it never saw. So a reading is flagged if its
confidence in slightly distorted copies of the image (`DigitReader.tta_confidence`), its image, or both together are
rarer than among the validation images that the model read right.

Shapes: N validation images, R of them read right, M other images, L label positions, K statistics of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data.vocabulary import EOS, MAX_DIGITS, decode_label

MIN_IMAGES = 100  # fewer say nothing about one in a hundred
# Shares of right validation readings that would be flagged: for their confidence, their image, or both together.
FLAGGED_CONFIDENCE = 0.02
FLAGGED_DISTANCE = 0.002
FLAGGED_TOGETHER = 0.01
FLAGGED_ASPECT_RATIOS = 0.005  # at either end
# Digits squeezed or stretched by a quarter are read nearly as well as others, by half only every second image.
ASPECT_MARGIN = 1.25

_MIN_CONFIDENCE_OF_FEW = 0.5  # below it, the model itself takes the reading for more likely wrong than right
_RIDGE = 1e-3  # keeps the covariance of few images, or of images that are all alike, invertible

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OODDetector:
    """Detects readings and images that are out of the distribution of the validation images.

    Confidence in distorted copies finds most wrong readings, but only some images without text. So image statistics
    count too, by their Mahalanobis distance from the validation images (Lee et al. 2018,
    https://arxiv.org/abs/1807.03888, there in a network's features), and both together by Fisher's method, which adds
    the logarithms of how rare each is: an image may be a little odd, or its reading a little uncertain, but not both.

    Attributes:
        mean: The mean image statistics of all validation images, ``(K,)``.
        precision: The inverse of their covariance, ``(K, K)``.
        confidences: In distorted copies, of right validation readings, ascending, ``(R,)``.
        distances: Of the statistics of these images from the mean, squared, ascending, ``(R,)``.
        min_confidence: Readings below it are flagged.
        max_distance: Images beyond it are flagged.
        max_rarity: Readings beyond it are flagged, by confidence and distance together.
        aspect_ratios: Images narrower than the first or wider than the second (width by height) are flagged.
        is_complete: Whether the checkpoint has the confidence in distorted copies that the limits are derived from.
    """

    mean: Floats
    precision: Floats
    confidences: Floats
    distances: Floats
    min_confidence: float
    max_distance: float
    max_rarity: float
    aspect_ratios: tuple[float, float]
    is_complete: bool

    @classmethod
    def of(cls, validation: Mapping[str, Any]) -> OODDetector:
        """Derive the limits from the validation readings in a checkpoint.

        With few images read right, and before the training has ended, a confidence below one half is flagged, and
        image statistics are not judged.

        Args:
            validation: ``rows`` and ``labels`` ``(N, L)``, ``aspect_ratios`` ``(N,)``, ``image_statistics`` ``(N, K)``,
                and once the training has ended ``tta_confidence`` ``(N,)``; tensors or arrays.
        """
        kept = {name: np.asarray(values) for name, values in validation.items()}
        statistics = kept["image_statistics"]
        mean, precision = _mean_and_precision(statistics)
        tta_confidence = kept.get("tta_confidence", np.full(len(statistics), np.nan))
        right = (kept["rows"] == kept["labels"]).all(1) & ~np.isnan(tta_confidence)
        confidence, distance = tta_confidence[right].astype(float), _distances(statistics[right], mean, precision)
        confidences, distances = np.sort(confidence), np.sort(distance)
        rarity = _rarity(confidence, distance, confidences, distances)
        low, high = np.quantile(kept["aspect_ratios"], [FLAGGED_ASPECT_RATIOS, 1 - FLAGGED_ASPECT_RATIOS])
        enough = len(confidences) >= MIN_IMAGES
        return cls(
            mean=mean,
            precision=precision,
            confidences=confidences,
            distances=distances,
            min_confidence=float(np.quantile(confidences, FLAGGED_CONFIDENCE)) if enough else _MIN_CONFIDENCE_OF_FEW,
            max_distance=float(np.quantile(distances, 1 - FLAGGED_DISTANCE)) if enough else np.inf,
            max_rarity=float(np.quantile(rarity, 1 - FLAGGED_TOGETHER)) if enough else np.inf,
            aspect_ratios=(float(low) / ASPECT_MARGIN, float(high) * ASPECT_MARGIN),
            is_complete="tta_confidence" in kept,
        )

    def flags(
        self, row: npt.NDArray[np.int64], confidence: float, aspect_ratio: float, statistics: Floats
    ) -> tuple[str, ...]:
        """Return the reasons to flag a reading, in words; none if it is not flagged.

        Args:
            row: The label row that was read, ``(L,)``.
            confidence: Its mean probability in the image and slightly distorted copies, 0 to 1.
            aspect_ratio: Width by height of the image before it was resized.
            statistics: The image's statistics, ``(K,)``.
        """
        low, high = self.aspect_ratios
        distance = _distances(statistics[None], self.mean, self.precision)
        rarity = _rarity(np.array([confidence]), distance, self.confidences, self.distances)
        is_uncertain, is_odd = confidence < self.min_confidence, bool(distance[0] > self.max_distance)
        reasons = {
            "nothing was read": not decode_label(row.tolist()),
            f"no end was read within {MAX_DIGITS} digits": EOS not in row,
            f"the reading is not stable when the image is slightly distorted: mean confidence {confidence:.2f}, "
            f"below {self.min_confidence:.2f}": is_uncertain,
            f"aspect ratio is {aspect_ratio:.2f}, not {low:.2f} to {high:.2f}": not low <= aspect_ratio <= high,
            "it looks like no validation image": is_odd,
            "confidence under distortion is low for rare image statistics": bool(rarity[0] > self.max_rarity)
            and not is_uncertain
            and not is_odd,
        }
        return tuple(reason for reason, holds in reasons.items() if holds)


def _mean_and_precision(statistics: Floats) -> tuple[Floats, Floats]:
    """Return the mean ``(K,)`` and the inverse covariance ``(K, K)`` of image statistics ``(N, K)``."""
    mean = statistics.mean(0)
    away = statistics - mean
    covariance = away.T @ away / len(statistics)
    ridge = _RIDGE * (np.trace(covariance) / len(covariance) + _RIDGE)
    return mean, np.linalg.inv(covariance + ridge * np.eye(len(covariance)))


def _distances(statistics: Floats, mean: Floats, precision: Floats) -> Floats:
    """Return the squared Mahalanobis distances ``(M,)`` of image statistics ``(M, K)``."""
    away = statistics - mean
    distances: Floats = np.einsum("mi,ij,mj->m", away, precision, away)
    return distances


def _rarity(confidence: Floats, distance: Floats, confidences: Floats, distances: Floats) -> Floats:
    """Return how rare readings are by confidence and distance together, ``(M,)``: minus the logarithm of both shares.

    Args:
        confidence: Of the readings, ``(M,)``.
        distance: Of their images, ``(M,)``.
        confidences: Of right validation readings, ascending, ``(R,)``.
        distances: Of their images, ascending, ``(R,)``.
    """
    count = len(confidences)
    less_certain = (np.searchsorted(confidences, confidence, "right") + 1) / (count + 1)
    odder = (count - np.searchsorted(distances, distance, "left") + 1) / (count + 1)
    return -np.log(less_certain) - np.log(odder)
