"""``status``: how a study stands."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from tuner.cli.errors import SUCCESS
from tuner.cli.options import Command, add_json_option, add_study_options

if TYPE_CHECKING:
    from studies import DiskUsage, StudyStatus


def run(options: argparse.Namespace) -> int:
    """Print the trials of the study and what it owes; it is only read."""
    from studies import disk_usage, load_study
    from tuner.session.status_poller import read_status

    study, folder = load_study(options.output_dir, storage_url=options.storage, name=options.study)
    status, disk = read_status(study, folder), disk_usage(folder)
    if options.json:
        print(json.dumps(_as_dict(status, disk), ensure_ascii=False, indent=2))
    else:
        _print(status, disk, show_all=options.all)
    return SUCCESS


def _as_dict(status: StudyStatus, disk: DiskUsage) -> dict[str, Any]:
    """Return the status as plain data; nobody knows when it is done if nobody works on it."""
    from dataclasses import asdict

    from studies import remaining_time

    workers = len(status.running)
    left = remaining_time(status, workers) if workers else None
    data = status.as_dict()
    trials = data.pop("trials")
    return data | {
        "workers": workers,
        "eta_seconds": None if left is None else round(left.seconds, 1),
        "eta_is_at_most": None if left is None else left.at_most,
        "disk": asdict(disk) | {"used": disk.used},
        "trials": trials,
    }


def _print(status: StudyStatus, disk: DiskUsage, *, show_all: bool) -> None:
    from tuner.display.live_view import running_table
    from tuner.display.terminal import console_on
    from tuner.display.trial_table import trial_table

    console = console_on(sys.stdout)
    console.print(f"study {status.study}, by {status.monitor} ({status.mode})", soft_wrap=True)
    console.print()
    table, hidden = trial_table(status, console.width, show_all=show_all)
    console.print(table)
    if hidden:
        console.print(f"{hidden:,} more trials: `khmer-tuner status --all` shows each", soft_wrap=True)
    console.print()
    if status.running:
        console.print(running_table(status.running, console.width))
        console.print()
    for line in _lines(status, disk, console.width):
        console.print(line, soft_wrap=True)


def _lines(status: StudyStatus, disk: DiskUsage, width: int) -> list[str]:
    """Return what a study comes to, and what it still owes."""
    from studies import remaining_time
    from tuner.display.study_lines import (
        ahead_line,
        best_line,
        disk_line,
        last_line,
        pending_line,
        remaining_line,
        search_line,
        targets_line,
        whole_line,
    )

    workers = len(status.running)
    lines = [
        whole_line(status, workers),
        search_line(status),
        best_line(status),
        ahead_line(status),
        last_line(status, width=width),
        remaining_line(status, remaining_time(status, workers)) if workers else None,
        targets_line(status),
        disk_line(disk),
        pending_line(status, remaining_time(status, 1)),
    ]
    return [line for line in lines if line is not None]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``status``."""
    parser.add_argument("--all", action="store_true", help="show every trial, however many there are")
    add_json_option(parser)
    add_study_options(parser)


COMMAND = Command(
    name="status",
    summary="show the trials of a study, how long the rest takes and what it still owes",
    examples="""\
  khmer-tuner status
  khmer-tuner status --all
  khmer-tuner status --output-dir training_output --json""",
    add_options=add_options,
    run=run,
)
