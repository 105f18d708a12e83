"""Read images with the best model of a study, or with a given one.

Examples:
  khmer-tuner predict generated_data/test/test_000000.png
  khmer-tuner predict --json generated_data/test
  khmer-tuner predict --checkpoint training_output/baseline_optimized/checkpoints/best.pt generated_data/test

A reading is flagged as out-of-distribution if its confidence in slightly distorted copies of the image, the image's
aspect ratio or its image statistics are rare among the validation images of the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS, report_problems, tell
from tuner.cli.existing_study import load_checkpoint_path
from tuner.cli.options import Command, add_checkpoint_option, add_device_option, add_study_options, filled
from tuner.cli.output import print_json, print_lines

if TYPE_CHECKING:
    from tuner.inference.reader import Reading


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=filled, help="an image file, or a folder of them")
    add_checkpoint_option(parser)
    add_device_option(parser, "auto")
    add_study_options(parser, json=True)


def run(options: argparse.Namespace, checkpoint: Path) -> int:
    """Print the digits of each image; problems with images are reported at the end, with exit code 2."""
    from search_spaces.diagnostics.plural import counted
    from tuner.data.user_images import count_subfolders
    from tuner.display.terminal import printable, shown_path
    from tuner.inference.reader import reader_of_checkpoint

    reader = reader_of_checkpoint(checkpoint, device=options.device)
    tell(f"checkpoint: {printable(shown_path(checkpoint))}")
    for path in options.images:
        if count := count_subfolders(path):
            tell(printable(f"{path}: {counted(count, 'subfolder')} skipped; name a subfolder to read its images"))
    if reader.ood_detector is None:
        tell("this checkpoint does not say what it was validated on: no reading can be flagged")
    elif not reader.ood_detector.is_complete:
        tell(
            "this checkpoint is of an unfinished or older training, or memory ran out at its end: only readings with "
            "confidence below 0.5, or images of another aspect ratio, are flagged"
        )
    readings = reader.read(options.images)
    read = [reading for reading in readings if not reading.problem]
    if options.json:
        print_json([_plain(reading) for reading in readings])
    else:
        _print(read)
    flagged = sum(reading.flagged for reading in read)
    if flagged >= max(5, 0.3 * len(read)):  # of images like the validation images, about one in ten is flagged
        tell(
            f"{flagged:,} of {len(read):,} images are out-of-distribution, perhaps in fonts that the model never "
            "saw: expect wrong readings; train on more fonts (`khmer-tuner data --fonts-dir DIR` or `--fonts system`)"
        )
    found = [printable(f"{reading.path}: {reading.problem}") for reading in readings if reading.problem]
    return report_problems(found) if found else SUCCESS


def _plain(reading: Reading) -> dict[str, object]:
    plain = {"path": str(reading.path), "text": reading.text, "confidence": round(reading.confidence, 6)}
    plain |= {"flagged": list(reading.flags)}
    return plain | ({"problem": reading.problem} if reading.problem else {})


def _print(readings: Sequence[Reading]) -> None:
    """Print a line for each image, its name last, for names can be long; below it why the reading is flagged."""
    from tuner.display.terminal import printable

    lines = [f"{'text':9}  confidence  image"] if readings else []
    for reading in readings:
        lines.append(f"{reading.text:9}  {reading.confidence:10.4f}  {printable(str(reading.path))}")
        lines += [f"{'':23}flagged: {'; '.join(reading.flags)}"] if reading.flags else []
    print_lines(lines)


COMMAND = Command(__name__, __doc__, _add_options, load_checkpoint_path, run)
