import numpy as np
import pytest
from PIL import Image

from tuner.data.images import load_user_images


@pytest.fixture
def image(generated):
    """A generated image with tones from 0 to 255, so that scaling 16-bit and float images gives the same tones."""
    with Image.open(generated.parent / "val" / "val_000000.png") as image:
        tones = np.asarray(image.convert("L"), float)
    scaled = (tones - tones.min()) / (tones.max() - tones.min()) * 255
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")


def rotated(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def transparent(image, path):
    ink = Image.new("RGBA", image.size, (0, 0, 0, 0))
    ink.putalpha(image.convert("L").point(lambda tone: 255 - tone))
    ink.save(path)


def in_16_bits(image, path):
    Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 16 + 100).save(path)


def in_floats(image, path):
    tones = np.asarray(image.convert("L"), np.float32) / 255
    tones[0, 0] = np.nan  # decoded as black
    Image.fromarray(tones).save(path)


@pytest.mark.parametrize(
    ("name", "save", "mean_difference"),
    [
        ("grey.png", lambda image, path: image.convert("L").save(path), 0.5),
        ("palette.gif", lambda image, path: image.convert("L").convert("P").save(path), 0.5),
        ("16_bits.png", in_16_bits, 0.5),
        ("16_bits.tiff", in_16_bits, 0.5),
        ("floats.tiff", in_floats, 0.5),
        ("rotated.png", rotated, 0.5),
        ("rotated.tiff", rotated, 0.5),
        ("rotated.jpg", rotated, 10),
        ("transparent.png", transparent, 1.5),
        ("printer.tiff", lambda image, path: image.convert("CMYK").save(path), 1.5),
        ("web.webp", lambda image, path: image.save(path, lossless=True), 0.5),
        ("large.bmp", lambda image, path: image.resize((1280, 640), Image.Resampling.NEAREST).save(path), 10),
    ],
)
def test_all_formats_of_an_image_give_the_same_pixels(name, save, mean_difference, image, tmp_path):
    save(image, tmp_path / name)
    [[loaded]] = load_user_images([tmp_path / name], 10)
    assert loaded.problem == ""
    assert loaded.pixels is not None
    assert loaded.pixels.shape == (64, 128)
    assert loaded.aspect_ratio == 2.0
    expected = np.asarray(image.convert("L"), float)
    upside_down = np.abs(expected[::-1, ::-1] - loaded.pixels).mean()
    assert np.abs(expected - loaded.pixels).mean() <= mean_difference < upside_down / 2


def test_images_are_loaded_in_batches_and_in_order(image, tmp_path):
    names = [f"{number}.png" for number in range(5)]
    for name in names:
        image.save(tmp_path / name)
    batches = list(load_user_images([tmp_path / "gone.png", tmp_path], 2))
    assert [len(batch) for batch in batches] == [2, 2, 2]
    loaded = [entry for batch in batches for entry in batch]
    assert [entry.path.name for entry in loaded] == ["gone.png", *names]
    assert [entry.pixels is None for entry in loaded] == [True] + [False] * 5
