"""Flagging of readings that may be wrong because the image is out-of-distribution.

A network reads text in any image, and is confident even for designs that it was not trained on. So a reading is
flagged if its confidence in slightly distorted copies of the image (`OCRNetwork.tta_confidence`), the statistics of
the image, or both in combination are rare among the validation images that the model read correctly.

Shapes: N validation images, R of them read correctly, M other images, L label positions, K statistics of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data.vocabulary import Vocabulary

MIN_IMAGES = 100  # fewer images do not suffice to estimate a quantile of 1 %
# Fractions of the correct validation readings that each limit flags: confidence, image statistics, and both combined.
FLAGGED_CONFIDENCE = 0.02
FLAGGED_DISTANCE = 0.002
FLAGGED_COMBINED = 0.01
FLAGGED_ASPECT_RATIOS = 0.005  # at each end
# Accuracy hardly changes if characters are squeezed or stretched by 25 %; at 50 %, half of the readings are wrong.
ASPECT_MARGIN = 1.25

_DEFAULT_MIN_CONFIDENCE = 0.5  # for fewer than MIN_IMAGES images; below it, the reading is more likely wrong than right
_RIDGE = 1e-3  # keeps the covariance of few or equal images invertible

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OODDetector:
    """Detects readings and images that are out of the distribution of the validation images.

    The confidence in distorted copies detects most wrong readings, but only some images without text. So there is also
    a limit for the Mahalanobis distance of the image statistics from the validation images (Lee et al. 2018,
    https://arxiv.org/abs/1807.03888, who use features of the network). A third limit applies to both combined by
    Fisher's method, which adds the logarithms of the p-values; it flags slightly unusual images with a slightly
    uncertain reading.

    Attributes:
        mean: The mean image statistics of all validation images, ``(K,)``.
        precision: The inverse of the covariance of these statistics, ``(K, K)``.
        confidences: TTA confidences of correct validation readings, ascending, ``(R,)``.
        distances: Squared Mahalanobis distances of correctly read validation images, ascending, ``(R,)``.
        min_confidence: Readings with a lower TTA confidence are flagged.
        max_distance: Images with a larger squared distance are flagged.
        max_rarity: Readings with a larger combined rarity of confidence and distance are flagged.
        aspect_ratios: Images with a smaller or larger aspect ratio (width divided by height) are flagged.
        is_complete: Whether the checkpoint has the TTA confidences from which the limits are derived.
        vocabulary: The vocabulary of the model.
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
    vocabulary: Vocabulary

    @classmethod
    def of(cls, validation: Mapping[str, Any], vocabulary: Vocabulary) -> OODDetector:
        """Derive the limits from the validation readings in a checkpoint.

        If fewer than `MIN_IMAGES` readings are correct or training has not finished, the confidence limit is 0.5, and
        image statistics are ignored.

        Args:
            validation: Tensors or arrays: the predicted label sequences ``rows`` and the ground-truth ``labels``,
                ``(N, L)``, ``aspect_ratios`` ``(N,)``, ``image_statistics`` ``(N, K)`` and, if training has finished,
                ``tta_confidence`` ``(N,)``.
            vocabulary: The vocabulary of the model.
        """
        arrays = {name: np.asarray(values) for name, values in validation.items()}
        statistics = arrays["image_statistics"]
        mean, precision = _mean_and_precision(statistics)
        tta_confidence = arrays.get("tta_confidence", np.full(len(statistics), np.nan))
        correct = (arrays["rows"] == arrays["labels"]).all(1) & ~np.isnan(tta_confidence)
        confidence, distance = tta_confidence[correct].astype(float), _distances(statistics[correct], mean, precision)
        confidences, distances = np.sort(confidence), np.sort(distance)
        rarity = _rarity(confidence, distance, confidences, distances)
        low, high = np.quantile(arrays["aspect_ratios"], [FLAGGED_ASPECT_RATIOS, 1 - FLAGGED_ASPECT_RATIOS])
        enough = len(confidences) >= MIN_IMAGES
        return cls(
            mean=mean,
            precision=precision,
            confidences=confidences,
            distances=distances,
            min_confidence=float(np.quantile(confidences, FLAGGED_CONFIDENCE)) if enough else _DEFAULT_MIN_CONFIDENCE,
            max_distance=float(np.quantile(distances, 1 - FLAGGED_DISTANCE)) if enough else np.inf,
            max_rarity=float(np.quantile(rarity, 1 - FLAGGED_COMBINED)) if enough else np.inf,
            aspect_ratios=(float(low) / ASPECT_MARGIN, float(high) * ASPECT_MARGIN),
            is_complete="tta_confidence" in arrays,
            vocabulary=vocabulary,
        )

    @classmethod
    def of_dict(cls, data: Mapping[str, Any], vocabulary: Vocabulary) -> OODDetector:
        """Restore a detector from the result of `as_dict`."""
        plain: dict[str, Any] = {name: np.inf if value is None else value for name, value in data.items()}
        arrays = {name: np.array(value, float) for name, value in plain.items() if isinstance(value, list)}
        return cls(**plain | arrays | {"aspect_ratios": tuple(plain["aspect_ratios"]), "vocabulary": vocabulary})

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as data for JSON, without the vocabulary; an infinite limit is None."""
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}
        del plain["vocabulary"]
        return {name: None if value == np.inf else value for name, value in plain.items()}

    def flags(
        self, row: npt.NDArray[np.int64], confidence: float, aspect_ratio: float, statistics: Floats
    ) -> tuple[str, ...]:
        """Return the reasons why a reading is flagged, as text; an empty tuple if it is not flagged.

        Args:
            row: The label sequence that was read, ``(L,)`` for L label positions.
            confidence: The TTA confidence: the mean over the image and slightly distorted copies, 0 to 1.
            aspect_ratio: Original width of the image divided by its height.
            statistics: The K statistics of the image, ``(K,)``.
        """
        low, high = self.aspect_ratios
        distance = _distances(statistics[None], self.mean, self.precision)
        rarity = _rarity(np.array([confidence]), distance, self.confidences, self.distances)
        is_uncertain, is_outlier = confidence < self.min_confidence, bool(distance[0] > self.max_distance)
        reasons = {
            "no character was read": not self.vocabulary.decode(row.tolist()),
            f"no end mark was read within {self.vocabulary.max_length} characters": self.vocabulary.special.eos
            not in row,
            f"the reading is not stable when the image is slightly distorted: mean confidence {confidence:.2f}, "
            f"below {self.min_confidence:.2f}": is_uncertain,
            f"aspect ratio {aspect_ratio:.2f} is outside {low:.2f} to {high:.2f}": not low <= aspect_ratio <= high,
            "the image is unlike the validation images": is_outlier,
            "low confidence under distortion combined with unusual image statistics": bool(rarity[0] > self.max_rarity)
            and not is_uncertain
            and not is_outlier,
        }
        return tuple(reason for reason, applies in reasons.items() if applies)


def _mean_and_precision(statistics: Floats) -> tuple[Floats, Floats]:
    """Return the mean ``(K,)`` and the inverse covariance ``(K, K)`` of image statistics ``(N, K)``."""
    mean = statistics.mean(0)
    centred = statistics - mean
    covariance = centred.T @ centred / len(statistics)
    ridge = _RIDGE * (np.trace(covariance) / len(covariance) + _RIDGE)
    return mean, np.linalg.inv(covariance + ridge * np.eye(len(covariance)))


def _distances(statistics: Floats, mean: Floats, precision: Floats) -> Floats:
    """Return the squared Mahalanobis distances ``(M,)`` of image statistics ``(M, K)`` from `mean`."""
    centred = statistics - mean
    distances: Floats = np.einsum("mi,ij,mj->m", centred, precision, centred)
    return distances


def _rarity(confidence: Floats, distance: Floats, confidences: Floats, distances: Floats) -> Floats:
    """Return the combined rarity of readings ``(M,)``: the negative sum of the logarithms of two p-values.

    Args:
        confidence: TTA confidences of the readings, ``(M,)``.
        distance: Squared Mahalanobis distances of the images, ``(M,)``.
        confidences: TTA confidences of correct validation readings, ascending, ``(R,)``.
        distances: Squared Mahalanobis distances of correctly read validation images, ascending, ``(R,)``.
    """
    count = len(confidences)
    less_certain = (np.searchsorted(confidences, confidence, "right") + 1) / (count + 1)
    more_distant = (count - np.searchsorted(distances, distance, "left") + 1) / (count + 1)
    return -np.log(less_certain) - np.log(more_distant)
