"""Files that are not images, damaged images and decompression bombs, in a dataset and as input of `predict`."""

import os
import struct
import zlib

import pytest

FORMATS = "it is in none of the formats PNG, JPEG, BMP, GIF, PPM, TIFF, WEBP, AVIF, JPEG2000, or its header is damaged"
TOO_MANY_PIXELS = "it has more than 50 million pixels"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, pixels=b"", *, extra=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


GOOD = png(128, 64, (b"\0" + bytes(range(128))) * 64)
IMAGES = {
    "zero bytes": (b"", "the file is empty"),
    "text": (b"not an image", FORMATS),
    "HTML": (b"<!DOCTYPE html><html><body>404</body></html>", FORMATS),
    "SVG with a script": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', FORMATS),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", FORMATS),
    "PostScript, which Pillow would run": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", FORMATS),
    "a ZIP file": (b"PK\x03\x04" + bytes(60), FORMATS),
    "the signature alone": (GOOD[:8], FORMATS),
    "no width and no height": (png(0, 0), FORMATS),
    "cut off in the middle": (GOOD[: len(GOOD) // 2], "truncated"),
    "a flipped bit": (GOOD[:60] + bytes([GOOD[60] ^ 255]) + GOOD[61:], "broken"),
    "fewer pixels than it says": (png(2000, 1000, b"\0" * 10), "truncated"),
    "a bomb of pixels": (png(60_000, 60_000), TOO_MANY_PIXELS),
    "the largest size that PNG has": (png(2**31 - 1, 2**31 - 1), TOO_MANY_PIXELS),
    "a bomb of text": (
        png(8, 8, bytes(72), extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000)))),
        "too large",
    ),
}


def named(number):
    return f"{number:02}.png"


@pytest.fixture
def images(working_dir):
    paths = [working_dir / named(number) for number in range(len(IMAGES))]
    for path, (content, _) in zip(paths, IMAGES.values(), strict=True):
        path.write_bytes(content)
    return paths


def test_predict_names_every_unreadable_image(refused, images, run_study):
    checkpoint = run_study.folder / "ខ្មែរ" / "checkpoints" / "best.pt"
    problems = refused(["predict", *(path.name for path in images), "--checkpoint", str(checkpoint)])
    for path, (_, reason), text in zip(images, IMAGES.values(), problems, strict=True):
        assert text.startswith(f"{path.name}: the file cannot be read as an image: ")
        assert reason in text
        assert text.endswith("; choose an image file, or recreate the file")


def test_predict_names_paths_that_are_not_files(refused, working_dir, run_study):
    checkpoint = run_study.folder / "ខ្មែរ" / "checkpoints" / "best.pt"
    (working_dir / "empty").mkdir()
    (working_dir / "image_1.png").write_bytes(GOOD)
    os.mkfifo(working_dir / "pipe.png")
    with (working_dir / "huge.png").open("wb") as file:
        file.truncate(300 * 10**6)  # sparse
    cases = {
        "imge_1.png": "there is no such file; did you mean 'image_1.png'?",
        "nothing like it": "there is no such file; check the name",
        "image_2.png": "there is no such file; check the name",
        "no/such/folder.png": "there is no such file; check the path",
        "empty": "the folder contains no images (.avif,",
        "pipe.png": "it is not a regular file",
        "huge.png": "the file has 300,000,000 bytes; expected at most 256,000,000",
        "image_1.png/x.png": "Not a directory",
        "/dev/null": "it is not a regular file",
        "x" * 300: "File name too long",
        "\x1b[31mred.png": "there is no such file",
    }
    problems = refused(["predict", *cases, "--checkpoint", str(checkpoint)])
    assert len(problems) == len(cases)
    assert [text for text, reason in zip(problems, cases.values(), strict=True) if reason not in text] == []


@pytest.fixture
def dataset(working_dir, images):
    """A dataset whose training images are all unreadable; its configuration is `c.yaml`."""
    samples = "".join(f"  - {{image_path: {path.name}, label: ១}}\n" for path in images)
    (working_dir / "good.png").write_bytes(GOOD)
    (working_dir / "metadata.yaml").write_text(
        f"train:\n  samples:\n{samples}val:\n  samples:\n  - {{image_path: good.png, label: ២}}\n", encoding="utf-8"
    )
    (working_dir / "c.yaml").write_text("experiments: {a: {data: {metadata_path: metadata.yaml}}}")
    return images


@pytest.mark.parametrize("command", [["run", "--config"], ["validate"]], ids=" ".join)
def test_dataset_with_unreadable_images_is_refused_and_leaves_no_cache(refused, dataset, command):
    problems = refused([*command, "c.yaml"])
    for path, (_, reason), text in zip(dataset, IMAGES.values(), problems, strict=True):
        assert text.startswith(f"<here>/{path.name}: cannot be read as an image: ")
        assert reason in text
        assert text.endswith("; recreate or replace the file")


def test_dataset_with_a_pipe_and_a_huge_file_is_refused_without_reading_them(refused, dataset, working_dir):
    for path in dataset:
        path.write_bytes(GOOD)
    dataset[0].unlink()
    os.mkfifo(dataset[0])
    with dataset[1].open("wb") as file:
        file.truncate(300 * 10**6)  # sparse
    (pipe,) = refused(["run", "--config", "c.yaml"])
    assert "00.png" in pipe
    assert "its image does not exist" in pipe
    dataset[0].unlink()
    dataset[0].write_bytes(GOOD)
    (huge,) = refused(["run", "--config", "c.yaml"])
    size = "the file has 300,000,000 bytes; expected at most 256,000,000"
    assert huge.endswith(f"01.png: cannot be read as an image: {size}; recreate or replace the file")
