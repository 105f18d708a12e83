"""``evaluate``: score a checkpoint on a dataset."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.command import (
    Command,
    add_checkpoint_option,
    add_device_option,
    add_json_option,
    add_study_options,
    checkpoint_path,
    filled,
)
from tuner.cli.errors import DONE, gathered

if TYPE_CHECKING:
    from tuner.inference import Accuracies, Evaluation


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``evaluate``."""
    parser.add_argument("--metadata", metavar="P", type=filled, required=True, help="the dataset's metadata.yaml")
    parser.add_argument("--split", metavar="S", type=filled, default="test", help="which split (default: %(default)s)")
    add_checkpoint_option(parser)
    add_device_option(parser, "auto")
    add_json_option(parser)
    add_study_options(parser)


def problems(options: argparse.Namespace) -> list[str]:
    """Return what is wrong with checkpoint and metadata before PyTorch is loaded."""
    from tuner.data.metadata import read_metadata_bytes

    return gathered(
        [lambda: checkpoint_path(options), lambda: options.metadata and read_metadata_bytes(Path(options.metadata))],
        options,
    )


def run(options: argparse.Namespace) -> int:
    """Print accuracies, in all, by number of digits and by font."""
    from tuner.inference import evaluate_split, load_reader

    checkpoint = checkpoint_path(options)
    evaluation = evaluate_split(load_reader(checkpoint, device=options.device), options.metadata, options.split)
    if options.json:
        print(json.dumps(_plain(checkpoint, options, evaluation), ensure_ascii=False, indent=2))
    else:
        _print(checkpoint, options, evaluation)
    return DONE


def _plain(checkpoint: Path, options: argparse.Namespace, evaluation: Evaluation) -> dict[str, object]:
    place = {"checkpoint": str(checkpoint), "metadata": options.metadata, "split": options.split}
    return place | asdict(evaluation)


def _print(checkpoint: Path, options: argparse.Namespace, evaluation: Evaluation) -> None:
    from tuner.screen import console_on, plain_table, shown_path

    console = console_on(sys.stdout)
    console.print(f"checkpoint: {shown_path(checkpoint)}", soft_wrap=True)
    console.print(f"dataset: {options.metadata}, split {options.split}", soft_wrap=True)
    console.print()
    table = plain_table("", "images", "char", "seq", right=(1, 2, 3))
    table.add_row(*_cells("all", evaluation))
    lengths = {f"{length} digit{'s' * (length > 1)}": part for length, part in evaluation.by_length.items()}
    fonts = {name or "(no font given)": part for name, part in evaluation.by_font.items()}
    for name, part in (lengths | fonts).items():
        table.add_row(*_cells(name, part))
    console.print(table)
    console.print()
    console.print(f"loss: {evaluation.loss:.4f}")


def _cells(name: str, part: Accuracies) -> tuple[str, str, str, str]:
    return name, f"{part.samples:,}", f"{part.char_accuracy:.4f}", f"{part.seq_accuracy:.4f}"


COMMAND = Command(
    name="evaluate",
    summary="score a checkpoint on any dataset",
    examples="""\
  khmer-tuner evaluate --metadata generated_data/metadata.yaml
  khmer-tuner evaluate --metadata other/metadata.yaml --split val --checkpoint best.pt""",
    add_options=add_options,
    run=run,
    problems=problems,
)
