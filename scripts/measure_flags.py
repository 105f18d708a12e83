#!/usr/bin/env python3
"""Measure how many readings `predict` flags: for known fonts, for unseen fonts, and for crops of photographs.

Only images whose font does not occur in the training split of `--metadata` count as unseen, because a dataset
generated with `--fonts-dir` or `--fonts system` also contains the built-in fonts.

Example: python scripts/measure_flags.py --checkpoint training_output/conservative_small/checkpoints/best.pt \
    --metadata generated_data/metadata.yaml --unseen unseen/metadata.yaml --photographs photographs
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tuner import load_reader
from tuner.data.pixel_cache import open_pixel_cache
from tuner.data.vocabulary import Vocabulary
from tuner.inference.reader import Reader, Reading

VOCABULARY = Vocabulary()

CROPS = 300


def main() -> None:
    """Read each group of images; print the number of readings and the percentage that is flagged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, help="checkpoint of the model")
    parser.add_argument("--metadata", required=True, help="metadata file of the dataset on which the model was trained")
    parser.add_argument("--unseen", nargs="*", default=[], help="metadata files of datasets with unseen fonts")
    parser.add_argument("--photographs", type=Path, help="folder of images from which random crops are read")
    options = parser.parse_args()
    reader = load_reader(options.checkpoint, device="cpu")
    known = set(open_pixel_cache(options.metadata, ["train"])["train"].font_names)
    measure_dataset(reader, options.metadata, without=set())
    for metadata in options.unseen:
        measure_dataset(reader, metadata, without=known)
    if options.photographs:
        with tempfile.TemporaryDirectory() as folder:
            cut_photographs(options.photographs, Path(folder))
            report("crops of photographs", reader.read([folder]))


def measure_dataset(reader: Reader, metadata: str, without: set[str]) -> None:
    """Predict the test split except images in the fonts `without`; print counts for right and for wrong readings."""
    split = open_pixel_cache(metadata, ["test"])["test"]
    chosen = [index for index, font in enumerate(split.font_numbers) if split.font_names[font] not in without]
    started = time.perf_counter()
    readings = reader.read(split.image_paths[index] for index in chosen)
    speed = len(chosen) / (time.perf_counter() - started)
    labels = [VOCABULARY.decode(split.labels[index].tolist()) for index in chosen]
    print(f"{metadata}: {len(chosen):,} images, {speed:.0f} images/s")
    for name, is_right in (("right", True), ("wrong", False)):
        pairs = zip(readings, labels, strict=True)
        report(f"  {name} readings", [reading for reading, label in pairs if (reading.text == label) == is_right])


def cut_photographs(photographs: Path, target: Path) -> None:
    """Write random crops of the images in a folder, twice as wide as high; each run writes the same crops."""
    random = np.random.default_rng(0)
    files = sorted(file for file in photographs.iterdir() if file.is_file())
    for number in range(CROPS):
        with Image.open(files[number % len(files)]) as image:
            height = int(random.uniform(0.15, 0.9) * min(image.height, image.width / 2))
            left, top = random.integers(0, [image.width - 2 * height + 1, image.height - height + 1])
            crop = image.convert("RGB").crop((left, top, left + 2 * height, top + height))
        crop.save(target / f"{number:04d}.png")


def report(name: str, readings: Sequence[Reading]) -> None:
    """Print the number of readings and the percentage that is flagged."""
    flagged = sum(reading.flagged for reading in readings)
    print(f"{name}: {len(readings):,}, flagged {flagged / max(1, len(readings)):.1%}", flush=True)


if __name__ == "__main__":
    main()
