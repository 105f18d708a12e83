"""Score a model on a dataset.

Examples:
  khmer-tuner evaluate --metadata generated_data/metadata.yaml
  khmer-tuner evaluate --metadata generated_data/metadata.yaml --split val --json
  khmer-tuner evaluate --metadata generated_data/metadata.yaml --output-dir training_output

For the table of characters, each reading is aligned with its label by minimum
edit distance. Recall is the fraction of a character's occurrences that are read
correctly, precision the fraction of its readings that are correct.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
    from tuner.training.confusion_counts import CharacterScore

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
    """Print the accuracies over all images, per number of characters and per font, and the confused characters."""
    from tuner.analysis.study_reader import open_reader
    from tuner.inference.reader import evaluate_split
    from tuner.training.confusion_counts import character_scores

    reader = open_reader(checkpoint, device=options.device)
    evaluation = evaluate_split(reader, options.metadata, options.split)
    scores = character_scores(evaluation.confusion, reader.vocabulary.characters)
    if options.json:
        print_json(_plain(checkpoint, options, evaluation, scores))
    else:
        _print(checkpoint, options, evaluation, scores)
    return SUCCESS


def _plain(
    checkpoint: Path, options: argparse.Namespace, evaluation: Evaluation, scores: Sequence[CharacterScore]
) -> dict[str, object]:
    source = {"checkpoint": str(checkpoint), "metadata": options.metadata, "split": options.split}
    figures = {name: value for name, value in asdict(evaluation).items() if name != "confusion"}
    by_character = {score.character: asdict(score) for score in scores}
    return source | figures | {"by_character": by_character, "confusion": evaluation.confusion.tolist()}


def _print(
    checkpoint: Path, options: argparse.Namespace, evaluation: Evaluation, scores: Sequence[CharacterScore]
) -> None:
    from search_spaces.diagnostics.wording import counted
    from tuner.display.terminal import plain_table, shown_path

    heads = [f"model: {shown_path(checkpoint)}", f"dataset: {options.metadata}, split {options.split}"]
    table = plain_table("", "images", "char", "seq", right=(1, 2, 3))
    table.add_row(*_cells("all", evaluation))
    lengths = {counted(length, "character"): part for length, part in evaluation.by_length.items()}
    fonts = {name or "(unknown font)": part for name, part in evaluation.by_font.items()}
    for name, part in (lengths | fonts).items():
        table.add_row(*_cells(name, part))
    loss = [] if evaluation.loss is None else ["", f"loss: {evaluation.loss:.4f}"]
    print_lines([*heads, "", table, "", _characters_table(scores), *loss])


def _cells(name: str, part: Accuracies) -> tuple[str, str, str, str]:
    return name, f"{part.samples:,}", f"{part.char_accuracy:.4f}", f"{part.seq_accuracy:.4f}"


def _characters_table(scores: Sequence[CharacterScore]) -> Table:
    """Return a table with a row per character: count, recall, precision and the characters that are read instead."""
    from tuner.data.vocabulary import code_point_text
    from tuner.display.terminal import plain_table

    table = plain_table("character", "count", "recall", "precision", "read instead", right=(1, 2, 3))
    for score in scores:
        mistakes = sorted(score.read_as.items(), key=lambda mistake: -mistake[1])
        shown = [f"{read} {count:,}" for read, count in mistakes[:_MISTAKES_SHOWN]]
        more = sum(count for _, count in mistakes[_MISTAKES_SHOWN:])
        table.add_row(
            code_point_text(score.character) if score.character.isspace() else score.character,
            f"{score.count:,}",
            _fraction(score.recall),
            _fraction(score.precision),
            ", ".join([*shown, *([f"others {more:,}"] if more else [])]),
        )
    return table


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
