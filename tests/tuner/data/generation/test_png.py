import io

import numpy as np
import pytest
from PIL import Image

from tuner.data.generation.png import encode_png


@pytest.mark.parametrize("shape", [(64, 128, 3), (1, 1, 3), (200, 300, 3)])  # the last one needs several blocks
def test_pillow_decodes_the_same_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        image.verify()  # checksums
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels)
