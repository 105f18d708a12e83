from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tuner.data.augmentation import TTA_MATRICES
from tuner.inference.onnx_graph import preprocessing_graph

KINDS = ["attention", "ctc"]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def sessions(exported):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return {kind: onnxruntime.InferenceSession(str(exported(kind)), options) for kind in KINDS}


@pytest.fixture(scope="module")
def preprocessing():
    return onnxruntime.InferenceSession(preprocessing_graph(10).SerializeToString())


@pytest.mark.parametrize(
    ("height", "width", "largest_difference"),
    [
        (64, 128, 0),
        (32, 64, 0),
        (48, 400, 0),
        (128, 256, 0),
        (97, 211, 0),
        (600, 2000, 0),
        (1, 1, 0),
        # From version 13 on, Pillow resizes some tall images vertically first, so that the rounding differs.
        (300, 128, 1),
        (211, 97, 1),
        (1000, 30, 1),
    ],
)
def test_preprocessing_in_the_graph_equals_pillow(height, width, largest_difference, preprocessing):
    rgb = np.random.default_rng(height).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    (pixels,) = preprocessing.run(None, {preprocessing.get_inputs()[0].name: rgb})
    for image, found in zip(rgb, pixels, strict=True):
        grey = Image.fromarray(image).convert("L").resize((128, 64), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(grey, int) - found).max() <= largest_difference


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 8, 65])
def test_graph_reads_like_the_network_for_any_number_of_images(kind, count, sessions, readers, val):
    pixels = np.random.default_rng(count).integers(0, 256, (count, 64, 128)).astype(np.uint8)
    real = val.images[: count // 2]
    pixels[: len(real)] = real
    pixels[-1] = 128 + pixels[-1] // 64  # little contrast
    images = np.repeat(pixels[..., None], 3, axis=3)
    names = ["rows", "confidence", "tta_confidence"]
    distortions = np.array(TTA_MATRICES, np.float32)
    rows, *confidences = sessions[kind].run(names, {"images": images, "distortions": distortions})
    expected = readers[kind].read_pixels(pixels)
    assert (rows == expected.rows).all()
    for found, wanted in zip(confidences, expected[1:], strict=True):
        assert np.isfinite(found).all()
        assert np.abs(found - wanted).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_blank_image_has_a_finite_confidence(kind, sessions):
    outputs = sessions[kind].run(["confidence"], {"images": np.full((1, 64, 128, 3), 255, np.uint8)})
    assert 0 <= float(outputs[0][0]) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_distorted_copies_are_optional(kind, sessions):
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 90, 3), dtype=np.uint8)
    rows, confidence, tta_confidence = sessions[kind].run(None, {"images": images})
    assert rows.shape == (3, 9)
    assert (confidence == tta_confidence).all()
    assert [item.name for item in sessions[kind].get_inputs()] == ["images"]


@pytest.mark.parametrize("kind", KINDS)
def test_file_is_small_and_contains_no_paths_of_this_machine(kind, exported, readers):
    content = exported(kind).read_bytes()
    for path in (str(ROOT), str(Path.home()), "site-packages", "training_output"):
        assert path.encode() not in content
    parameters = sum(parameter.numel() for parameter in readers[kind].model.parameters())
    assert len(content) < 4 * parameters + 100_000
