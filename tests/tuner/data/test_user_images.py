from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tuner.data.user_images import load_user_images

Save = Callable[[Image.Image, Path], None]


@pytest.fixture
def picture(generated: Path) -> Image.Image:
    """A generated picture from black to white, so that kinds without a fixed black or white have the same tones."""
    with Image.open(generated.parent / "val" / "val_000000.png") as image:
        tones = np.asarray(image.convert("L"), float)
    stretched = (tones - tones.min()) / (tones.max() - tones.min()) * 255
    return Image.fromarray(stretched.astype(np.uint8)).convert("RGB")


def turned(picture: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def transparent(picture: Image.Image, path: Path) -> None:
    ink = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    ink.putalpha(picture.convert("L").point(lambda tone: 255 - tone))
    ink.save(path)


def in_16_bits(picture: Image.Image, path: Path) -> None:
    Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 16 + 100).save(path)


def in_floats(picture: Image.Image, path: Path) -> None:
    tones = np.asarray(picture.convert("L"), np.float32) / 255
    tones[0, 0] = np.nan  # in a corner; read as black
    Image.fromarray(tones).save(path)


@pytest.mark.parametrize(
    ("name", "save", "mean_difference"),
    [
        ("grey.png", lambda picture, path: picture.convert("L").save(path), 0.5),
        ("palette.gif", lambda picture, path: picture.convert("L").convert("P").save(path), 0.5),
        ("16_bits.png", in_16_bits, 0.5),
        ("16_bits.tiff", in_16_bits, 0.5),
        ("floats.tiff", in_floats, 0.5),
        ("turned.png", turned, 0.5),
        ("turned.tiff", turned, 0.5),
        ("turned.jpg", turned, 10),
        ("transparent.png", transparent, 1.5),
        ("printer.tiff", lambda picture, path: picture.convert("CMYK").save(path), 1.5),
        ("web.webp", lambda picture, path: picture.save(path, lossless=True), 0.5),
        ("large.bmp", lambda picture, path: picture.resize((1280, 640), Image.Resampling.NEAREST).save(path), 10),
    ],
)
def test_all_forms_of_a_picture_give_the_same_pixels(
    name: str, save: Save, mean_difference: float, picture: Image.Image, tmp_path: Path
) -> None:
    save(picture, tmp_path / name)
    [[loaded]] = load_user_images([tmp_path / name], 10)
    assert loaded.problem == ""
    assert loaded.pixels is not None
    assert loaded.pixels.shape == (64, 128)
    assert loaded.aspect_ratio == 2.0
    expected = np.asarray(picture.convert("L"), float)
    upside_down = np.abs(expected[::-1, ::-1] - loaded.pixels).mean()
    assert np.abs(expected - loaded.pixels).mean() <= mean_difference < upside_down / 2


def test_pictures_come_in_batches_and_in_order(picture: Image.Image, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(5)]
    for name in names:
        picture.save(tmp_path / name)
    batches = list(load_user_images([tmp_path / "gone.png", tmp_path], 2))
    assert [len(batch) for batch in batches] == [2, 2, 2]
    loaded = [entry for batch in batches for entry in batch]
    assert [entry.path.name for entry in loaded] == ["gone.png", *names]
    assert [entry.pixels is None for entry in loaded] == [True] + [False] * 5
