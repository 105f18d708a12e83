"""``predict``: read images with a trained model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.cli.errors import INVALID_INPUT, SUCCESS, gathered, report_problems, tell
from tuner.cli.options import (
    Command,
    add_checkpoint_option,
    add_device_option,
    add_json_option,
    add_study_options,
    checkpoint_path,
    filled,
)

if TYPE_CHECKING:
    from tuner.inference.reader import Reading


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``predict``."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=filled, help="an image file, or a folder of them")
    add_checkpoint_option(parser)
    add_device_option(parser, "auto")
    add_json_option(parser)
    add_study_options(parser)


def problems(options: argparse.Namespace) -> list[str]:
    """Return what keeps the checkpoint from being found, before PyTorch is loaded."""
    return gathered([lambda: checkpoint_path(options)], options)


def run(options: argparse.Namespace) -> int:
    """Print what each image says; those that cannot be read are told at the end, and the exit code is 2."""
    from tuner.display.terminal import printable
    from tuner.inference.reader import load_reader

    reader = load_reader(checkpoint_path(options), device=options.device)
    if reader.ood_detector is None:
        tell("this checkpoint does not say what it was validated on: no reading can be flagged")
    readings = reader.read_files(options.images)
    if options.json:
        print(json.dumps([_plain(reading) for reading in readings], ensure_ascii=False, indent=2))
    else:
        _print([reading for reading in readings if not reading.problem])
    found = [printable(f"{reading.path}: {reading.problem}") for reading in readings if reading.problem]
    if not found:
        return SUCCESS
    report_problems(found)
    return INVALID_INPUT


def _plain(reading: Reading) -> dict[str, object]:
    plain = {"path": str(reading.path), "text": reading.text, "confidence": round(reading.confidence, 6)}
    plain |= {"flagged": list(reading.flags)}
    return plain | ({"problem": reading.problem} if reading.problem else {})


def _print(readings: Sequence[Reading]) -> None:
    """Print a line for each image, its name last, for names can be long; below it why the reading is flagged."""
    from tuner.display.terminal import printable

    if readings:
        print(f"{'text':9}  confidence  image")
    for reading in readings:
        print(f"{reading.text:9}  {reading.confidence:10.4f}  {printable(str(reading.path))}")
        if reading.flags:
            print(f"{'':23}flagged: {'; '.join(reading.flags)}")


COMMAND = Command(
    name="predict",
    summary="read images with the best model of a study, or with a given one",
    examples="""\
  khmer-tuner predict generated_data/test/test_000000.png
  khmer-tuner predict --json generated_data/test
  khmer-tuner predict --checkpoint training_output/baseline_optimized/checkpoints/best.pt generated_data/test

A reading is flagged if it is less certain, or its picture of another shape or look, than nearly all of the images
that the model was validated on.""",
    add_options=add_options,
    run=run,
    problems=problems,
)
