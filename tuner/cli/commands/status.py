"""Show the trials of a study, its progress and remaining time.

Examples:
  khmer-tuner status
  khmer-tuner status --all
  khmer-tuner status --watch
  khmer-tuner status --output-dir training_output --json

A wide terminal also shows each trial's number of parameters (params) and its
milliseconds per image (ms); `show` and --json have them in any case.
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
    """Load the study; raise if --watch and --json are combined, because --json prints one document."""
    from search_spaces import ConfigurationError

    if options.watch and options.json:
        raise ConfigurationError("--watch: found with --json, which prints one document; leave out --watch or --json")
    return load(options)


def run(options: argparse.Namespace, loaded: LoadedStudy) -> int:
    """Print the status once, or repeatedly with --watch; the study is only read."""
    from studies import disk_usage
    from tuner.display.terminal import console_on, is_terminal
    from tuner.session.status_poller import read_status

    study, folder = loaded
    printed: list[str] = []
    while True:
        status = read_status(study, folder)
        if options.json:
            print_json(_as_dict(status, disk_usage(folder)))
        elif options.watch and not is_terminal(sys.stdout):
            printed = _print_changes(status, printed)
        else:
            if options.watch:
                console_on(sys.stdout).clear()
            _print(status, disk_usage(folder), folder, show_all=options.all)
        if not options.watch or not (status.pending or status.running):
            return SUCCESS
        time.sleep(_POLL_S)


def _print_changes(status: StudyStatus, printed: list[str]) -> list[str]:
    """Print the status lines that are not among `printed`, those of the previous poll; return the current lines."""
    from tuner.display.lines import best_line, last_line, trials_line

    rows = [f"{row.name}: epoch {row.epochs} of {row.num_epochs or '?'} finished" for row in status.running]
    whole = trials_line(status, len(status.running)), last_line(status), best_line(status)
    lines = [*rows, *filter(None, whole)]
    print_lines(line for line in lines if line not in printed)
    return lines


def _as_dict(status: StudyStatus, disk: DiskUsage) -> dict[str, Any]:
    """Return the status as plain data, with an estimate of the remaining time if a worker is running."""
    from dataclasses import asdict

    from studies import remaining_time

    workers = len(status.running)
    remaining = remaining_time(status, workers) if workers else None
    data = status.as_dict()
    trials = data.pop("trials")
    return data | {
        "workers": workers,
        "eta_seconds": None if remaining is None else round(remaining.seconds, 1),
        "eta_is_at_most": None if remaining is None else remaining.at_most,
        "disk": asdict(disk) | {"used": disk.used},
        "trials": trials,
    }


def _print(status: StudyStatus, disk: DiskUsage, folder: OutputFolder, *, show_all: bool) -> None:
    from search_spaces.diagnostics.wording import counted
    from tuner.display.lines import study_command
    from tuner.display.tables import running_table, trial_table
    from tuner.display.terminal import console_on

    width = console_on(sys.stdout).width
    table, hidden = trial_table(status, width, show_all=show_all)
    show_all_command = study_command("status --all", folder.path)
    more = [f"{counted(hidden, 'more trial')}; run `{show_all_command}` to show all trials"] if hidden else []
    running = [running_table(status.running, width), ""] if status.running else []
    head = f"study {status.study}, objective {status.monitor} ({status.mode})"
    print_lines([head, "", table, *more, "", *running, *_lines(status, disk, folder, width)])


def _lines(status: StudyStatus, disk: DiskUsage, folder: OutputFolder, width: int) -> list[str]:
    from studies import remaining_time
    from tuner.display import lines

    workers = len(status.running)
    texts = [
        lines.trials_line(status, workers),
        lines.search_line(status),
        lines.prior_line(status),
        lines.best_line(status),
        lines.best_running_line(status),
        lines.last_line(status, width=width),
        lines.remaining_line(status, remaining_time(status, workers)) if workers else None,
        lines.targets_line(status),
        lines.disk_line(disk),
        lines.pending_line(status, remaining_time(status, 1), folder.path),
    ]
    return [line for line in texts if line is not None]


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "--all", "show each trial in its own row, even in a large study")
    watch = "refresh until no trial is pending or you press Ctrl-C; without a terminal, print only changes"
    add_flag(parser, "--watch", watch)
    add_study_options(parser, json=True)


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
