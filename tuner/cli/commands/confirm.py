"""Retrain the best configurations on new seeds and compare them.

Examples:
  khmer-tuner confirm --top 2 --seeds 2
  khmer-tuner confirm --top 2 --seeds 2 --json

The best of many trials is optimistically biased. So `confirm` retrains the best
configurations, all on the same new seeds, and scores them on the test split.
Running the command again trains only what is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from tuner.cli.errors import FAILED, SUCCESS
from tuner.cli.existing_study import load
from tuner.cli.options import (
    Command,
    add_device_option,
    add_option,
    add_set_option,
    add_study_options,
    add_workers_option,
    overrides_of,
    whole_number,
)
from tuner.cli.output import print_json, print_lines

if TYPE_CHECKING:
    from tuner.analysis.candidates import Candidates
    from tuner.analysis.confirmation import Candidate, Confirmation

_COMPARED = "test char"


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_option(parser, "--top", "K", whole_number(2, 1000), "number of best configurations to retrain", default=3)
    seeds = "number of new seeds per configuration; more seeds detect smaller differences"
    add_option(parser, "--seeds", "N", whole_number(1, 1000), seeds, default=3)
    add_set_option(parser, "override a setting of the retrained configurations")
    add_workers_option(parser)
    add_device_option(parser)
    add_study_options(parser, json=True)


def prepare(options: argparse.Namespace) -> Candidates:
    """Find the configurations to compare, and check the dataset."""
    from tuner.analysis.candidates import find_candidates
    from tuner.session.output_paths import CONFIRMATION, check_output_file

    overrides = overrides_of(options, for_trials=True)
    candidates = find_candidates(*load(options), options.top, overrides)
    if (path := candidates.folder.confirmation_path).exists():
        check_output_file(path, CONFIRMATION, options.output_dir, "comparison file")
    return candidates


def run(options: argparse.Namespace, candidates: Candidates) -> int:
    """Train the missing repetitions, then print the comparison."""
    from search_spaces.diagnostics.disk import write_json
    from tuner.analysis.confirmation import confirm
    from tuner.cli.display_factory import open_display

    confirmation = confirm(
        candidates,
        candidates.new_seeds(options.seeds),
        open_display=partial(open_display, with_summary=False, debug=options.debug),
        workers=options.workers,
        device=options.device,
    )
    plain = {"set": options.set} | _plain(confirmation)
    write_json(candidates.folder.confirmation_path, plain)  # for the report
    if options.json:
        print_json(plain)
    else:
        _print(confirmation, options.set)
    return FAILED if confirmation.count("failed") or not confirmation.count("completed") else SUCCESS


def _plain(confirmation: Confirmation) -> dict[str, Any]:
    from tuner.analysis.confirmation import METRICS

    return {
        "seeds": list(confirmation.seeds),
        "folder": str(confirmation.folder),
        "configurations": [
            asdict(item)
            | {"mean": {name: item.mean(name) for name in METRICS}}
            | {"standard_deviation": {name: item.deviation(name) for name in METRICS}}
            for item in confirmation.candidates
        ],
        "comparisons": [
            asdict(comparison) | {"better": comparison.better, "sentence": comparison.sentence(_COMPARED)}
            for comparison in confirmation.comparisons
        ],
    }


def _print(confirmation: Confirmation, settings: Sequence[str]) -> None:
    from tuner.display.terminal import plain_table, shown_path

    retrained_headers = [f"{name}\nretrained" for name in ("val char", "test char", "test seq")]
    table = plain_table("\nconfiguration", "val char\noriginal", *retrained_headers, right=(1, 2, 3, 4))
    for item in confirmation.candidates:
        retrained = [_cell(item, f"{name}_accuracy") for name in ("val_char", "test_char", "test_seq")]
        table.add_row(item.name, f"{item.first_val_char_accuracy:.4f}", *retrained)
    seeds = ", ".join(map(str, confirmation.seeds))
    changed = [f"retrained with --set {' --set '.join(settings)}, unlike the column 'original'"] if settings else []
    print_lines([f"mean +- standard deviation over seeds {seeds}", *changed, "", table, ""])
    print_lines([comparison.sentence(_COMPARED) for comparison in confirmation.comparisons], wrap_words=True)
    print_lines([*_not_completed(confirmation), "", f"repetitions: {shown_path(confirmation.folder)}"])


def _cell(item: Candidate, metric: str) -> str:
    mean, deviation = item.mean(metric), item.deviation(metric)
    if mean is None:
        return "-"
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} +- {deviation:.4f}"


def _not_completed(confirmation: Confirmation) -> list[str]:
    from search_spaces.diagnostics.wording import counted

    lines = []
    if failed := confirmation.count("failed"):
        lines.append(f"left out: {counted(failed, 'failed repetition')}; see the logs in the folder below")
    if unfinished := confirmation.count("unfinished"):
        lines.append(f"left out: {counted(unfinished, 'unfinished repetition')}; run the same command again to resume")
    return lines


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
