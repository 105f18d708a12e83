"""Recreate a study from a file of `export --format study`.

Examples:
  khmer-tuner import study.jsonl --output-dir imported

Finished trials keep everything but their checkpoints, plots and logs. Trials
that were interrupted or waiting are pending: `resume` trains them, with
--metadata if the dataset is elsewhere on this machine. With --storage, a study
moves from SQLite to PostgreSQL or back.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS
from tuner.cli.options import Command, add_study_options, non_empty
from tuner.cli.output import print_json, print_lines

if TYPE_CHECKING:
    from studies import OutputFolder, StudyFile


# The file's content, the storage URL, the study's name and the output folder.
Prepared = tuple["StudyFile", str, str, "OutputFolder"]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=non_empty, help="file written by `export --format study`")
    add_study_options(parser, json=True, named_in="FILE")


def prepare(options: argparse.Namespace) -> Prepared:
    """Read the file, and check that the output folder and the storage have no such study."""
    from studies import OutputFolder, check_import, default_storage_url
    from tuner.session.study_files import read_exported

    file, folder = read_exported(options.file), OutputFolder(options.output_dir)
    url, name = options.storage or default_storage_url(options.output_dir), options.study or file.study.study_name
    check_import(file, url, name, folder)
    return file, url, name, folder


def run(options: argparse.Namespace, prepared: Prepared) -> int:
    """Import the study; print the number of finished and pending trials."""
    from search_spaces.diagnostics.wording import counted
    from studies import import_study, load_study, study_invariants, study_status
    from tuner.display.lines import study_command

    import_study(*prepared)
    study, folder = load_study(prepared[-1].path, storage_url=options.storage)
    status = study_status(study, folder)
    if options.json:
        print_json({"study": study.study_name, "finished": status.ended, "pending": status.pending})
        return SUCCESS
    lines = [f"imported: study {study.study_name}, {counted(status.ended, 'finished trial')}, {status.pending} pending"]
    if status.pending:
        metadata = Path(study_invariants(study).dataset["metadata_path"])
        option = "" if metadata.exists() else " --metadata FILE"
        lines.append(f"run `{study_command('resume', folder.path)}{option}` to train the pending trials")
    print_lines(lines)
    return SUCCESS


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
