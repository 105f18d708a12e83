"""Score a checkpoint on a dataset.

Examples:
  khmer-tuner evaluate --metadata generated_data/metadata.yaml
  khmer-tuner evaluate --metadata generated_data/metadata.yaml --split val --json
  khmer-tuner evaluate --metadata generated_data/metadata.yaml --output-dir training_output

For the table of digits, each reading is aligned with its label by minimum edit
distance. Recall is the fraction of a digit's occurrences that are read
correctly, precision the fraction of its readings that are correct.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS, collector
from tuner.cli.existing_study import load_checkpoint_path
from tuner.cli.options import (
    Command,
    add_checkpoint_option,
    add_device_option,
    add_option,
    add_study_options,
    non_empty,
)
from tuner.cli.output import print_json, print_lines

if TYPE_CHECKING:
    from rich.table import Table

    from tuner.inference.reader import Accuracies, Evaluation

_MISTAKES_SHOWN = 4


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_option(parser, "--metadata", "FILE", non_empty, "the dataset's metadata.yaml", required=True)
    add_option(parser, "--split", "NAME", non_empty, "split to score", default="test")
    add_checkpoint_option(parser)
    add_device_option(parser, "auto")
    add_study_options(parser, json=True)


def prepare(options: argparse.Namespace) -> Path:
    """Find the checkpoint and check that the metadata file can be read, before PyTorch is imported."""
    from tuner.data.metadata import read_metadata_bytes

    problems = collector(options)
    with problems.collect():
        checkpoint = load_checkpoint_path(options)
    if options.metadata is not None:
        with problems.collect():
            read_metadata_bytes(Path(options.metadata))
    problems.raise_all()
    return checkpoint


def run(options: argparse.Namespace, checkpoint: Path) -> int:
    """Print the accuracies over all images, per number of digits and per font, and the confused digits."""
    from tuner.inference.reader import evaluate_split, reader_of_checkpoint

    evaluation = evaluate_split(
        reader_of_checkpoint(checkpoint, device=options.device), options.metadata, options.split
    )
    if options.json:
        print_json(_plain(checkpoint, options, evaluation))
    else:
        _print(checkpoint, options, evaluation)
    return SUCCESS


def _plain(checkpoint: Path, options: argparse.Namespace, evaluation: Evaluation) -> dict[str, object]:
    from tuner.training.confusion_counts import digit_scores

    source = {"checkpoint": str(checkpoint), "metadata": options.metadata, "split": options.split}
    figures = {name: value for name, value in asdict(evaluation).items() if name != "confusion"}
    by_digit = {score.digit: asdict(score) for score in digit_scores(evaluation.confusion)}
    return source | figures | {"by_digit": by_digit, "confusion": evaluation.confusion.tolist()}


def _print(checkpoint: Path, options: argparse.Namespace, evaluation: Evaluation) -> None:
    from tuner.display.terminal import plain_table, shown_path

    heads = [f"checkpoint: {shown_path(checkpoint)}", f"dataset: {options.metadata}, split {options.split}"]
    table = plain_table("", "images", "char", "seq", right=(1, 2, 3))
    table.add_row(*_cells("all", evaluation))
    lengths = {f"{length} digit{'s' * (length > 1)}": part for length, part in evaluation.by_length.items()}
    fonts = {name or "(unknown font)": part for name, part in evaluation.by_font.items()}
    for name, part in (lengths | fonts).items():
        table.add_row(*_cells(name, part))
    print_lines([*heads, "", table, "", _digits_table(evaluation), "", f"loss: {evaluation.loss:.4f}"])


def _cells(name: str, part: Accuracies) -> tuple[str, str, str, str]:
    return name, f"{part.samples:,}", f"{part.char_accuracy:.4f}", f"{part.seq_accuracy:.4f}"


def _digits_table(evaluation: Evaluation) -> Table:
    """Return a table with a row per digit: count, recall, precision and the digits that are read instead."""
    from tuner.display.terminal import plain_table
    from tuner.training.confusion_counts import digit_scores

    table = plain_table("digit", "count", "recall", "precision", "read instead", right=(1, 2, 3))
    for score in digit_scores(evaluation.confusion):
        mistakes = sorted(score.read_as.items(), key=lambda mistake: -mistake[1])
        shown = [f"{read} {count:,}" for read, count in mistakes[:_MISTAKES_SHOWN]]
        more = sum(count for _, count in mistakes[_MISTAKES_SHOWN:])
        table.add_row(
            score.digit,
            f"{score.count:,}",
            _fraction(score.recall),
            _fraction(score.precision),
            ", ".join([*shown, *([f"others {more:,}"] if more else [])]),
        )
    return table


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
