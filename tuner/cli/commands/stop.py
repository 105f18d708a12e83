"""Stop all workers of a study at the end of their current epoch.

Examples:
  khmer-tuner stop
  khmer-tuner stop --wait

Commands in other terminals and on other machines stop too and write their
results. Commands that start later are not stopped. Continue with `resume`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS
from tuner.cli.existing_study import LoadedStudy
from tuner.cli.options import Command, add_flag, add_study_options
from tuner.cli.output import print_json, print_lines

if TYPE_CHECKING:
    import optuna

    from studies import OutputFolder, StatusRow

_POLL_S = 0.5


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "--wait", "wait until the running trials have stopped")
    parser.set_defaults(stop_requested=False)
    add_study_options(parser, json=True)


def prepare(options: argparse.Namespace) -> LoadedStudy:
    """Open the study for writing, to store the stop request."""
    from studies import load_study_for_changes

    return load_study_for_changes(options.output_dir, storage_url=options.storage, name=options.study)


def run(options: argparse.Namespace, loaded: LoadedStudy) -> int:
    """Store the stop request in the study, and print the trials that will stop."""
    from studies import request_stop
    from tuner.display.lines import study_command

    study, folder = loaded
    stopping = _running(study, folder)
    # Request a stop even if no trial is running, because a worker may be between two trials.
    request_stop(study)
    options.stop_requested = True
    if not options.json:
        _print(stopping)
    if options.wait:
        _wait(study, folder, stopping)
    if options.json:
        print_json({"asked": [_plain(row) for row in stopping], "stopped": options.wait})
    elif options.wait and stopping:
        print_lines([f"stopped; run `{study_command('resume', folder.path)}` to continue"])
    return SUCCESS


def _running(study: optuna.Study, folder: OutputFolder) -> Sequence[StatusRow]:
    from studies import study_status

    return study_status(study, folder).running


def _wait(study: optuna.Study, folder: OutputFolder, stopping: Sequence[StatusRow]) -> None:
    """Wait until the trials that were running have stopped, but not for trials that start later."""
    time.sleep(_POLL_S)
    # A worker that was between two trials has claimed its next trial by now, and stops it at once.
    attempts = {_attempt(row) for row in (*stopping, *_running(study, folder))}
    while attempts & {_attempt(row) for row in _running(study, folder)}:
        time.sleep(_POLL_S)


def _attempt(row: StatusRow) -> tuple[int, int]:
    return row.number, row.attempts


def _print(stopping: Sequence[StatusRow]) -> None:
    if not stopping:
        print_lines(["stop requested; no trial is running"])
    for row in stopping:
        process = f"process {row.worker_pid}" if row.worker_pid else "process on another machine"
        epochs = "1 epoch" if row.epochs == 1 else f"{row.epochs} epochs"
        print_lines([f"{row.name} (trial {row.number}): {epochs} finished, stops after the current epoch; {process}"])


def _plain(row: StatusRow) -> dict[str, object]:
    return {"number": row.number, "name": row.name, "epochs": row.epochs, "worker_pid": row.worker_pid}


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
