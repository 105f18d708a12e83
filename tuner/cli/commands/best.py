"""Print or save the best configuration for `run --config`.

Examples:
  khmer-tuner best
  khmer-tuner best --out best.yaml
  khmer-tuner best --max-latency-ms 50 --max-parameters 400000
  khmer-tuner best --json

The configuration is named after the trial (best_search_0007) and contains its
seed, so training it in another --output-dir reproduces the results. Model
definitions that are not built-in are written to the folder of the --out file.
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.cli.errors import SUCCESS, collector
from tuner.cli.existing_study import load
from tuner.cli.options import Command, above_zero, add_option, add_study_options, non_empty, whole_number
from tuner.cli.output import STANDARD_OUTPUT, print_json, print_lines, print_text

if TYPE_CHECKING:
    from tuner.analysis.best_trial import Preset, Winner


def _add_options(parser: argparse.ArgumentParser) -> None:
    out = "file to write; an existing file is overwritten only if `best` wrote it (default: `-`, standard output)"
    add_option(parser, "--out", "FILE", non_empty, out, default=STANDARD_OUTPUT)
    latency = "choose among trials that read one image in at most X ms, measured on the device of their training"
    add_option(parser, "--max-latency-ms", "X", above_zero("a finite number of milliseconds above 0"), latency)
    parameters = "choose among trials whose network has at most N parameters"
    add_option(parser, "--max-parameters", "N", whole_number(1, 10**12), parameters)
    add_study_options(parser, json=True)


def prepare(options: argparse.Namespace) -> Winner:
    """Find the best trial, and check that ``--out`` can be written."""
    from tuner.analysis.best_trial import check_preset_path, find_winner

    problems = collector(options)
    with problems.collect():
        study = load(options)
        winner = find_winner(*study, latency_ms=options.max_latency_ms, parameters=options.max_parameters)
    if options.out != STANDARD_OUTPUT:
        with problems.collect():
            check_preset_path(Path(options.out), options.output_dir)
    problems.raise_all()
    return winner


def run(options: argparse.Namespace, winner: Winner) -> int:
    """Print the best configuration as an experiments file, or write the file and print a summary."""
    from tuner.analysis.best_trial import best_preset, write_preset

    out = None if options.out == STANDARD_OUTPUT else Path(options.out)
    preset = best_preset(winner, out)
    if out is not None:
        write_preset(preset, out, options.output_dir)
    if options.json:
        print_json(_plain(winner, preset, out))
    elif out is None:
        print_text(preset.text)
    else:
        _print(winner, preset, out)
    return SUCCESS


def _plain(winner: Winner, preset: Preset, out: Path | None) -> dict[str, Any]:
    from search_spaces import experiments_data

    epoch = winner.best_epoch
    return {
        "study": winner.study,
        "output_dir": str(winner.folder.path),
        "number": winner.record.number,
        "name": winner.name,
        "why": winner.why,
        "better_by_monitor": winner.leader,
        "outcome": asdict(winner.outcome),
        "best_epoch": None if epoch is None else asdict(epoch),
        "checkpoint": str(winner.checkpoint) if winner.checkpoint.is_file() else None,
        "versions": dict(winner.invariants.versions),
        "preset": experiments_data({preset.name: preset.config}, winner.targets),
        "preset_file": None if out is None else str(out.absolute()),
    }


def _print(winner: Winner, preset: Preset, out: Path) -> None:
    from tuner.analysis.best_trial import winner_lines
    from tuner.display.terminal import shown_path

    written = [shown_path(out), *([shown_path(preset.models_path)] if preset.models_path else [])]
    quoted = shlex.quote(shown_path(out))
    metadata, checkpoint = shlex.quote(preset.config.metadata_path), shlex.quote(shown_path(winner.checkpoint))
    print_lines(
        [
            *winner_lines(winner),
            f"written     {' and '.join(written)}",
            "",
            f"retrain     khmer-tuner run --config {quoted} --output-dir ANOTHER_FOLDER",
            f"test        khmer-tuner evaluate --metadata {metadata} --checkpoint {checkpoint}",
            f"confirm     khmer-tuner confirm --output-dir {shlex.quote(shown_path(winner.folder.path))}",
        ]
    )


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
