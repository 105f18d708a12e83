"""Export the results of a study, or the whole study, to a file.

Examples:
  khmer-tuner export --results-file results.json
  khmer-tuner export --format csv
  khmer-tuner export --format csv --results-file -
  khmer-tuner export --format study --results-file study.jsonl

Spreadsheets can open the CSV file: it is UTF-8 with a byte order mark
(except on standard output), and text that looks like a formula gets a leading
apostrophe. `khmer-tuner import` recreates the study of a study file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS, collector, print_message
from tuner.cli.existing_study import LoadedStudy, load
from tuner.cli.options import Command, add_option, add_study_options, non_empty, one_of
from tuner.cli.output import STANDARD_OUTPUT, print_text

if TYPE_CHECKING:
    import optuna

    from studies import OutputFolder, StudyStatus

_DEFAULT_NAMES = {"json": None, "csv": "trials_{}.csv", "study": "study_{}.jsonl"}


def _add_options(parser: argparse.ArgumentParser) -> None:
    results_file = (
        "file to write, or `-` for standard output; an existing file is overwritten only if it is an export of the "
        "same format (default: standard output for json, trials_{timestamp}.csv for csv, "
        "study_{timestamp}.jsonl for study)"
    )
    add_option(parser, "--results-file", "FILE", non_empty, results_file)
    form = "json: results of the finished trials; csv: one row per trial; "
    form += "study: everything that `import` needs to recreate the study"
    add_option(parser, "--format", "FORMAT", one_of(*_DEFAULT_NAMES), form, default="json")
    add_study_options(parser)


def prepare(options: argparse.Namespace) -> LoadedStudy:
    """Load the study, and check that the file can be written."""
    problems = collector(options)
    if (path := _path(options, "{timestamp}")) is not None:
        with problems.collect():
            _check_path(options, path)
    with problems.collect():
        study = load(options)
    problems.raise_all()
    return study


def run(options: argparse.Namespace, study: LoadedStudy) -> int:
    """Print or write the export; the study is only read."""
    from search_spaces.diagnostics.disk import write_text
    from tuner.session.output_paths import BYTE_ORDER_MARK, timestamp

    now = timestamp()
    text, what = _rendered(options.format, *study, now)
    path = _path(options, now)
    if path is None:
        print_text(text)
        return SUCCESS
    _check_path(options, path)  # again, since another file may have been created meanwhile
    write_text(Path(path), BYTE_ORDER_MARK + text if options.format == "csv" else text)
    print_message(f"{what} written to {path}")
    return SUCCESS


def _path(options: argparse.Namespace, now: str) -> str | None:
    """Return the path of the file, or None for standard output."""
    default = _DEFAULT_NAMES[options.format]
    path: str | None = options.results_file or (None if default is None else default.format(now))
    return None if path == STANDARD_OUTPUT else path


def _check_path(options: argparse.Namespace, path: str) -> None:
    from tuner.session.output_paths import RESULTS, STUDY, TRIALS_CSV, check_output_file

    kind = {"json": RESULTS, "csv": TRIALS_CSV, "study": STUDY}[options.format]
    check_output_file(Path(path), kind, options.output_dir, "results file")


def _rendered(form: str, study: optuna.Study, folder: OutputFolder, now: str) -> tuple[str, str]:
    """Format an export; return its content, and a text such as ``3 trials`` for a message."""
    from search_spaces.diagnostics.wording import counted
    from studies import TRIAL_COLUMNS, csv_text, render_results, study_status, trial_rows

    if form == "json":
        results = render_results(study, timestamp=now)
        text = json.dumps(results, ensure_ascii=False, indent=2) + "\n"
        return text, counted(len(results["all_results"]), "result")
    if form == "csv":
        rows = trial_rows(study, folder)
        return csv_text(TRIAL_COLUMNS, rows), counted(len(rows), "trial")
    from tuner.session.study_files import exported_text

    return exported_text(study, folder), _study_content(study_status(study, folder))


def _study_content(status: StudyStatus) -> str:
    from search_spaces.diagnostics.wording import counted

    started = len(status.running) + status.counts["interrupted"]
    restarts = f" (unfinished, and starting again after an import: {started})" if started else ""
    return f"study with {counted(len(status.rows), 'trial')}{restarts}"


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
