"""Image files and metadata with any content are read, or refused with a message."""

import io

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from search_spaces import DataLoaderError
from tuner.data.images import MAX_PIXELS, UnreadableImageError, decode_image
from tuner.data.metadata import read_metadata
from tuner.data.vocabulary import KHMER_DIGITS


def image_file(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


FILES = {kind: image_file(kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")}
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\nshowpage\n"


def decoded_or_reason(data):
    try:
        return decode_image(data)
    except UnreadableImageError as error:
        return str(error)


def check(data):
    result = decoded_or_reason(data)
    if isinstance(result, str):
        assert result
        return
    assert (result.pixels.shape, result.pixels.dtype) == ((64, 128), np.uint8)
    assert 0 < result.width_px * result.height_px <= MAX_PIXELS


@given(data=st.binary(max_size=100) | st.sampled_from([*FILES.values(), POSTSCRIPT]))
def test_any_bytes_are_decoded_or_refused_with_a_reason(data):
    check(data)


@given(
    kind=st.sampled_from(list(FILES)),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    kept=st.floats(0, 1),
)
def test_damaged_image_is_decoded_or_refused_with_a_reason(kind, damage, kept):
    data = bytearray(FILES[kind])
    for position, value in damage:
        # Half of the damage is in the header, which has the sizes.
        data[int(position * (len(data) if value % 2 else 60))] = value
    check(bytes(data[: int(kept * len(data)) if kept < 0.5 else None]))


def test_postscript_is_refused_and_not_executed():
    assert "in none of the formats" in str(decoded_or_reason(POSTSCRIPT))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.text(KHMER_DIGITS, max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
SAMPLE = st.fixed_dictionaries(
    {}, optional={name: PLAIN for name in ("image_filename", "image_path", "label", "font", "metadata")}
)
SPLIT = PLAIN | st.lists(SAMPLE | PLAIN, max_size=3) | st.fixed_dictionaries({"samples": st.lists(SAMPLE, max_size=3)})


@given(data=PLAIN | st.fixed_dictionaries({"train": SPLIT, "val": SPLIT}))
def test_any_metadata_without_images_are_refused_with_a_message(data, tmp_path):
    path = tmp_path / "metadata.yaml"
    path.write_bytes(yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass"))
    with pytest.raises(DataLoaderError) as caught:  # none of them has an existing image
        read_metadata(path, ["train", "val"])
    assert all(str(path) in problem for problem in caught.value.problems)
