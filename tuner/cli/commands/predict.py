"""Read images with the best model or another one.

Examples:
  khmer-tuner predict generated_data/test/test_000000.png
  khmer-tuner predict --json generated_data/test
  khmer-tuner predict --checkpoint training_output/baseline_optimized/checkpoints/best.pt generated_data/test

A reading is flagged as out-of-distribution if the image's aspect ratio, the
image's statistics, or the model's confidence on slightly distorted copies of
the image would be rare among the validation images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS, print_message, report_problems
from tuner.cli.existing_study import load_checkpoint_path
from tuner.cli.options import Command, add_checkpoint_option, add_device_option, add_study_options, non_empty
from tuner.cli.output import print_json, print_lines

if TYPE_CHECKING:
    from tuner.inference.reader import Reading


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=non_empty, help="image file or folder of images")
    add_checkpoint_option(parser)
    add_device_option(parser, "auto")
    add_study_options(parser, json=True)


def run(options: argparse.Namespace, checkpoint: Path) -> int:
    """Print the text read from each image; if images cannot be read, report them and return exit code 2."""
    from search_spaces.diagnostics.wording import counted
    from tuner.analysis.study_reader import open_reader
    from tuner.data.images import count_subfolders
    from tuner.display.terminal import printable, shown_path

    reader = open_reader(checkpoint, device=options.device)
    print_message(f"model: {printable(shown_path(checkpoint))}")
    for path in options.images:
        if count := count_subfolders(path):
            skipped = counted(count, "subfolder")
            print_message(printable(f"{path}: {skipped} skipped; add a subfolder as IMAGE to read its images"))
    if not reader.ood_detector.is_complete:
        print_message(
            "only confidences below 0.5 and unusual aspect ratios can be flagged, because the training of this model "
            "is unfinished or ran out of memory at its end"
        )
    readings = reader.read(options.images)
    read = [reading for reading in readings if not reading.problem]
    if options.json:
        print_json([_plain(reading) for reading in readings])
    else:
        _print(read)
    flagged = sum(reading.flagged for reading in read)
    if flagged >= max(5, 0.3 * len(read)):  # about one in ten images like the validation images is flagged
        print_message(
            f"{flagged:,} of {len(read):,} images are out-of-distribution, perhaps because the training images do "
            "not contain their fonts; expect wrong readings, or train on more fonts (`khmer-tuner data --fonts-dir "
            "DIR` or `--fonts system`)"
        )
    found = [printable(f"{reading.path}: {reading.problem}") for reading in readings if reading.problem]
    return report_problems(found) if found else SUCCESS


def _plain(reading: Reading) -> dict[str, object]:
    plain = {"path": str(reading.path), "text": reading.text, "confidence": round(reading.confidence, 6)}
    plain |= {"flagged": list(reading.flags)}
    return plain | ({"problem": reading.problem} if reading.problem else {})


def _print(readings: Sequence[Reading]) -> None:
    """Print a line per image, with the path last because it can be long; below, the reasons for a flag."""
    from rich.cells import cell_len

    from tuner.display.terminal import printable

    width = max((cell_len(reading.text) for reading in readings), default=0)
    width = max(width, len("text"))
    lines = [f"{'text':{width}}  confidence  image"] if readings else []
    for reading in readings:
        text = reading.text + " " * (width - cell_len(reading.text))
        lines.append(f"{text}  {reading.confidence:10.4f}  {printable(str(reading.path))}")
        lines += [f"{'':{width + 14}}flagged: {'; '.join(reading.flags)}"] if reading.flags else []
    print_lines(lines)


COMMAND = Command(__name__, __doc__, _add_options, load_checkpoint_path, run)
