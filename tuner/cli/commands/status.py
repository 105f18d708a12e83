"""Show the trials of a study, what is pending and how long it takes.

Examples:
  khmer-tuner status
  khmer-tuner status --all
  khmer-tuner status --watch
  khmer-tuner status --output-dir training_output --json
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from tuner.cli.errors import SUCCESS
from tuner.cli.existing_study import LoadedStudy, load
from tuner.cli.options import Command, add_flag, add_study_options
from tuner.cli.output import print_json, print_lines

if TYPE_CHECKING:
    from studies import DiskUsage, OutputFolder, StudyStatus

_POLL_S = 3.0


def prepare(options: argparse.Namespace) -> LoadedStudy:
    """Find the study; refuse to watch it as JSON, which would be several documents."""
    from search_spaces import ConfigurationError

    if options.watch and options.json:
        raise ConfigurationError("--watch: found with --json, which prints one document; leave one of them out")
    return load(options)


def run(options: argparse.Namespace, loaded: LoadedStudy) -> int:
    """Print the trials of the study, and what is pending; it is only read."""
    from studies import disk_usage
    from tuner.display.terminal import console_on, is_terminal
    from tuner.session.status_poller import read_status

    study, folder = loaded
    known: list[str] = []
    while True:
        status = read_status(study, folder)
        if options.json:
            print_json(_as_dict(status, disk_usage(folder)))
        elif options.watch and not is_terminal(sys.stdout):
            known = _print_changes(status, known)
        else:
            if options.watch:
                console_on(sys.stdout).clear()
            _print(status, disk_usage(folder), folder, show_all=options.all)
        if not options.watch or not (status.pending or status.running):
            return SUCCESS
        time.sleep(_POLL_S)


def _print_changes(status: StudyStatus, known: list[str]) -> list[str]:
    """Print the lines that are not `known` from the last poll; return all lines of this one."""
    from tuner.display.study_lines import best_line, last_line, whole_line

    rows = [f"{row.name}: epoch {row.epochs} of {row.num_epochs or '?'} done" for row in status.running]
    whole = whole_line(status, len(status.running)), last_line(status), best_line(status)
    lines = [*rows, *filter(None, whole)]
    print_lines(line for line in lines if line not in known)
    return lines


def _as_dict(status: StudyStatus, disk: DiskUsage) -> dict[str, Any]:
    """Return the status as plain data; without a running worker there is no estimate of the time."""
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


def _print(status: StudyStatus, disk: DiskUsage, folder: OutputFolder, *, show_all: bool) -> None:
    from tuner.display.live_view import running_table
    from tuner.display.study_lines import study_command
    from tuner.display.terminal import console_on
    from tuner.display.trial_table import trial_table

    width = console_on(sys.stdout).width
    table, hidden = trial_table(status, width, show_all=show_all)
    more = [f"{hidden:,} more trials: `{study_command('status --all', folder.path)}` shows each"] if hidden else []
    running = [running_table(status.running, width), ""] if status.running else []
    head = f"study {status.study}, by {status.monitor} ({status.mode})"
    print_lines([head, "", table, *more, "", *running, *_lines(status, disk, folder, width)])


def _lines(status: StudyStatus, disk: DiskUsage, folder: OutputFolder, width: int) -> list[str]:
    from studies import remaining_time
    from tuner.display import study_lines

    workers = len(status.running)
    lines = [
        study_lines.whole_line(status, workers),
        study_lines.search_line(status),
        study_lines.best_line(status),
        study_lines.ahead_line(status),
        study_lines.last_line(status, width=width),
        study_lines.remaining_line(status, remaining_time(status, workers)) if workers else None,
        study_lines.targets_line(status),
        study_lines.disk_line(disk),
        study_lines.pending_line(status, remaining_time(status, 1), folder.path),
    ]
    return [line for line in lines if line is not None]


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "--all", "show every trial, however many there are")
    add_flag(parser, "--watch", "repeat until no trial is pending, or Ctrl-C; without a terminal print only changes")
    add_study_options(parser, json=True)


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
