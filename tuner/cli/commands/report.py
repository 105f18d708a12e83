"""Write a study as one HTML page with plots, tables and its winner.

Examples:
  khmer-tuner report
  khmer-tuner report --output-dir training_output --out study_report.html
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tuner.cli.errors import SUCCESS, collector, tell
from tuner.cli.existing_study import LoadedStudy, load
from tuner.cli.options import Command, add_option, add_study_options, filled

# A report may overwrite an older report, and no other file.
_OWN_MARK = b'<meta name="generator" content="khmer-ocr-tuner report">'
_MARK_WITHIN_BYTES = 1024


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_option(parser, "--out", "P", filled, "write it there, over an older report", default="report.html")
    add_study_options(parser)


def prepare(options: argparse.Namespace) -> LoadedStudy:
    """Load the study, and check that the report can be written."""
    problems = collector(options)
    problems.add(_path_problems(Path(options.out)))
    with problems.collect():
        study = load(options)
    problems.raise_all()
    return study


def run(options: argparse.Namespace, loaded: LoadedStudy) -> int:
    """Write the report and print its path; the study is only read."""
    from search_spaces.diagnostics.atomic_files import write_text
    from studies.report import render_report
    from tuner.training.history import read_metrics

    study, folder = loaded

    def read_epochs(name: str) -> list[Mapping[str, float]]:
        return [asdict(epoch) for epoch in read_metrics(folder.trial_dir(name))]

    path = Path(options.out)
    write_text(path, render_report(study, folder, read_epochs, output_dir=options.output_dir))
    tell(f"the report is one file of {path.stat().st_size / 1e6:.1f} MB that a browser opens without a network")
    print(path)
    return SUCCESS


def _path_problems(path: Path) -> list[str]:
    from tuner.session.output_paths import output_file_problem

    if problem := output_file_problem(path):
        return [f"--out {path}: {problem}"]
    if os.path.lexists(path) and not _is_report(path):
        return [f"--out {path}: this file is no report, so it is not overwritten; choose another name, or remove it"]
    return []


def _is_report(path: Path) -> bool:
    """Return whether a file is a report of this program, or empty."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            beginning = file.read(_MARK_WITHIN_BYTES)
    except OSError:
        return False
    return not beginning or _OWN_MARK in beginning


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
