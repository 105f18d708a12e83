"""Seven statistics of an image, computed without a network, that distinguish text on paper from other images.

Shapes: N grey images, height H = 64, width W = 128.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.cache_folder import Bytes, PixelFile

STATISTICS = ("contrast", "skewness", "kurtosis", "edges across", "edges down", "rows", "columns")

_CHUNK = 256
_EPSILON = 1e-3  # avoids the logarithm of zero

ImageStatistics = npt.NDArray[np.float64]


def image_statistics(pixels: Bytes | PixelFile) -> ImageStatistics:
    """Return the statistics ``(N, 7)`` of grey images ``(N, H, W)``, in the order of `STATISTICS`.

    Contrast is the standard deviation of the tones. The other statistics are computed after the tones have been
    normalised to mean 0 and standard deviation 1, as for the networks:

    - the third and fourth moments of the tones: little ink on much paper is skewed,
    - the mean absolute differences between horizontal neighbours and between vertical neighbours,
    - the standard deviations of the row means and of the column means: a line of text fills only some rows.

    All statistics are on logarithmic scales, because ratios matter, not differences.
    """
    chunks = [_statistics(pixels[start : start + _CHUNK].astype(np.float32)) for start in range(0, len(pixels), _CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros((0, len(STATISTICS)))


def _statistics(tones: npt.NDArray[np.float32]) -> ImageStatistics:
    contrast = tones.std((1, 2))
    normalised = (tones - tones.mean((1, 2), keepdims=True)) / (contrast[:, None, None] + _EPSILON)
    square = normalised * normalised
    columns = (
        np.log(contrast + 1),
        np.arcsinh((square * normalised).mean((1, 2))),
        np.log((square * square).mean((1, 2)) + _EPSILON),
        np.log(np.abs(np.diff(normalised, axis=2)).mean((1, 2)) + _EPSILON),
        np.log(np.abs(np.diff(normalised, axis=1)).mean((1, 2)) + _EPSILON),
        np.log(normalised.mean(2).std(1) + _EPSILON),
        np.log(normalised.mean(1).std(1) + _EPSILON),
    )
    return np.stack(columns, axis=1).astype(np.float64)
