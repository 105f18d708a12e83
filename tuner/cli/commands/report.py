"""Write an HTML report of a study: plots, tables, best trial.

Examples:
  khmer-tuner report
  khmer-tuner report --output-dir training_output --out study_report.html
  khmer-tuner report --out -
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tuner.cli.errors import SUCCESS, collector, print_message
from tuner.cli.existing_study import LoadedStudy, load
from tuner.cli.options import Command, add_option, add_study_options, non_empty
from tuner.cli.output import STANDARD_OUTPUT, print_lines, print_text


def _add_options(parser: argparse.ArgumentParser) -> None:
    out = "file to write, or `-` for standard output; an existing file is overwritten only if it is a report"
    add_option(parser, "--out", "FILE", non_empty, out, default="report.html")
    add_study_options(parser)


def prepare(options: argparse.Namespace) -> LoadedStudy:
    """Load the study, and check that the report can be written."""
    from tuner.session.output_paths import REPORT, check_output_file

    problems = collector(options)
    if options.out != STANDARD_OUTPUT:
        with problems.collect():
            check_output_file(Path(options.out), REPORT, options.output_dir, "--out")
    with problems.collect():
        study = load(options)
    problems.raise_all()
    return study


def run(options: argparse.Namespace, loaded: LoadedStudy) -> int:
    """Print the report, or write it and print its path; the study is only read."""
    from search_spaces.diagnostics.disk import write_text
    from studies.report import render_report
    from tuner.session.output_paths import REPORT, check_output_file
    from tuner.training.history import read_metrics

    study, folder = loaded

    def read_epochs(name: str) -> list[Mapping[str, float]]:
        return [asdict(epoch) for epoch in read_metrics(folder.trial_dir(name))]

    page, path = render_report(study, folder, read_epochs, output_dir=options.output_dir), Path(options.out)
    if options.out == STANDARD_OUTPUT:
        print_text(page)
        return SUCCESS
    check_output_file(path, REPORT, options.output_dir, "--out")  # again, since another file may exist now
    write_text(path, page)
    print_message(f"report written ({path.stat().st_size / 1e6:.1f} MB); open it in a browser, no network is needed:")
    print_lines([str(path)])
    return SUCCESS


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
