"""What most pictures of a set look like, and how far another one is from that.

Shapes: N pictures of the set, M others, K numbers that describe a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuner.data.image_statistics import ImageStatistics

_RIDGE = 1e-3  # keeps the covariance of few pictures, or of pictures that are all alike, invertible


@dataclass(frozen=True)
class ImageStatisticsModel:
    """An ellipsoid around the looks of a set of pictures.

    Distances from it are Mahalanobis', as Lee et al. measure them in a network's features (2018,
    https://arxiv.org/abs/1807.03888).

    Attributes:
        centre: The mean of the looks, ``(K,)``.
        precision: The inverse of their covariance, ``(K, K)``.
    """

    centre: ImageStatistics
    precision: ImageStatistics

    @classmethod
    def of(cls, looks: ImageStatistics) -> ImageStatisticsModel:
        """Measure the looks ``(N, K)`` of a set of pictures."""
        away = looks - looks.mean(0)
        covariance = away.T @ away / len(looks)
        ridge = _RIDGE * (np.trace(covariance) / len(covariance) + _RIDGE)
        return cls(looks.mean(0), np.linalg.inv(covariance + ridge * np.eye(len(covariance))))

    def distances(self, looks: ImageStatistics) -> ImageStatistics:
        """Return the squared distances ``(M,)`` of looks ``(M, K)``."""
        away = looks - self.centre
        distances: ImageStatistics = np.einsum("mi,ij,mj->m", away, self.precision, away)
        return distances
