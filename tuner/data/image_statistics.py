"""Seven statistics of an image, computed without a network: enough to tell digits on paper from other things.

Shapes: N grey images, H = 64, W = 128.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.cache_folder import Bytes, PixelFile

STATISTICS = ("contrast", "skewness", "kurtosis", "edges across", "edges down", "rows", "columns")

_CHUNK = 256
_SMALL = 1e-3  # keeps logarithms of nothing finite

ImageStatistics = npt.NDArray[np.float64]


def image_statistics(pixels: Bytes | PixelFile) -> ImageStatistics:
    """Return the statistics ``(N, 7)`` of grey images ``(N, H, W)``, in the order of `STATISTICS`.

    Contrast is the standard deviation of the tones; all others are of the image brought to mean 0 and deviation 1, as
    the networks see it: third and fourth moment of the tones (little ink on much paper is skewed), mean difference
    between neighbours across and down, and deviation of the means of rows and of columns (a line of text fills some
    rows). Ratios matter, not differences, so all are on logarithmic scales.
    """
    chunks = [_statistics(pixels[start : start + _CHUNK].astype(np.float32)) for start in range(0, len(pixels), _CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros((0, len(STATISTICS)))


def _statistics(tones: npt.NDArray[np.float32]) -> ImageStatistics:
    contrast = tones.std((1, 2))
    even = (tones - tones.mean((1, 2), keepdims=True)) / (contrast[:, None, None] + _SMALL)
    square = even * even
    columns = (
        np.log(contrast + 1),
        np.arcsinh((square * even).mean((1, 2))),
        np.log((square * square).mean((1, 2)) + _SMALL),
        np.log(np.abs(np.diff(even, axis=2)).mean((1, 2)) + _SMALL),
        np.log(np.abs(np.diff(even, axis=1)).mean((1, 2)) + _SMALL),
        np.log(even.mean(2).std(1) + _SMALL),
        np.log(even.mean(1).std(1) + _SMALL),
    )
    return np.stack(columns, axis=1).astype(np.float64)
