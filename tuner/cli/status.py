"""``status``: how a study stands."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from tuner.cli.command import Command, add_json_option, add_study_options
from tuner.cli.errors import DONE

if TYPE_CHECKING:
    from studies import StatusRow, StudyStatus


def run(options: argparse.Namespace) -> int:
    """Print the trials of the study and what it owes; it is only read."""
    from studies import load_study, study_status

    study, folder = load_study(options.output_dir, storage_url=options.storage, name=options.study)
    status = study_status(study, folder)
    if options.json:
        print(json.dumps(status.as_dict(), ensure_ascii=False, indent=2))
    else:
        _print(status)
    return DONE


def _print(status: StudyStatus) -> None:
    from tuner.screen import console_on, plain_table

    console = console_on(sys.stdout)
    console.print(f"study {status.study}, by {status.monitor} ({status.mode})", soft_wrap=True)
    console.print()
    headers = ("trial", "name", "state", "best", "epochs", "why ended", "time", "process")
    table = plain_table(*headers, right=(0, 3, 4, 6, 7))
    for row in status.rows:
        table.add_row(*_cells(row))
    console.print(table)
    console.print()
    console.print(", ".join(f"{count} {state}" for state, count in status.counts.items() if count) or "no trials yet")
    if status.best is not None:
        console.print(f"best: {status.best.name}, {status.monitor} {status.best.best_value:.4f}", soft_wrap=True)
    if status.owed:
        console.print(f"{status.owed} still to train: `khmer-tuner resume` goes on", soft_wrap=True)


def _cells(row: StatusRow) -> list[str]:
    from tuner.display.progress import clock

    return [
        str(row.number),
        row.name,
        row.state.value,
        "-" if row.best_value is None else f"{row.best_value:.4f}",
        str(row.epochs),
        (row.why_ended or "-").replace("_", " "),
        "-" if row.seconds is None else clock(row.seconds),
        "-" if row.worker_pid is None else str(row.worker_pid or "elsewhere"),
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``status``."""
    add_json_option(parser)
    add_study_options(parser)


COMMAND = Command(
    name="status",
    summary="show the trials of a study and what it still owes",
    examples="""\
  khmer-tuner status
  khmer-tuner status --output-dir my_output --json""",
    add_options=add_options,
    run=run,
)
