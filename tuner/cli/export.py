"""``export``: the results of a study at any time, also while it runs."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.cli.command import Command, add_study_options, filled, one_of
from tuner.cli.errors import DONE, gathered, tell


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``export``."""
    parser.add_argument("--results-file", metavar="P", type=filled, help="write it there (default: standard output)")
    parser.add_argument(
        "--format",
        metavar="F",
        type=one_of("json", "csv"),
        default="json",
        help="json: the documented results; csv: a row for each experiment (default: %(default)s)",
    )
    add_study_options(parser)


def problems(options: argparse.Namespace) -> list[str]:
    """Return what keeps the results from being written."""
    from tuner.results_file import check_results_path

    if options.results_file is None:
        return []
    return gathered([lambda: check_results_path(options.results_file)], options)


def run(options: argparse.Namespace) -> int:
    """Render the study's results; it is only read."""
    from studies import load_study, render_results, write_text

    study, _ = load_study(options.output_dir, storage_url=options.storage, name=options.study)
    results = render_results(study, timestamp=time.strftime("%Y%m%d_%H%M%S"))
    text = _as_csv(results) if options.format == "csv" else json.dumps(results, ensure_ascii=False, indent=2) + "\n"
    if options.results_file is None:
        sys.stdout.write(text)
        return DONE
    write_text(Path(options.results_file), text)
    tell(f"{len(results['all_results'])} results written to {options.results_file}")
    return DONE


def _as_csv(results: Mapping[str, Any]) -> str:
    """Return a row for each result, its hyperparameters in columns of their own names."""
    rows = [
        {name: value for name, value in result.items() if name != "hyperparameters"} | result["hyperparameters"]
        for result in results["all_results"]
    ]
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


COMMAND = Command(
    name="export",
    summary="write the results of a study, also while it runs",
    examples="""\
  khmer-tuner export --results-file results.json
  khmer-tuner export --format csv > results.csv""",
    add_options=add_options,
    run=run,
    problems=problems,
)
