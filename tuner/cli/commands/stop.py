"""Request that all workers of a study stop after the current epoch; `resume` continues.

Examples:
  khmer-tuner stop
  khmer-tuner stop --wait

Workers in other terminals and on other machines stop too, and results are written. What is started later is not
stopped.
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
    add_flag(parser, "--wait", "return when the trials that were running have stopped")
    parser.set_defaults(is_asked=False)
    add_study_options(parser, json=True)


def prepare(options: argparse.Namespace) -> LoadedStudy:
    """Open the study for writing the request into it."""
    from studies import load_study_for_changes

    return load_study_for_changes(options.output_dir, storage_url=options.storage, name=options.study)


def run(options: argparse.Namespace, loaded: LoadedStudy) -> int:
    """Write the request into the study, and print the trials that will stop."""
    from studies import request_stop

    study, folder = loaded
    asked = _running(study, folder)
    # Also if none is running: a worker may be between two trials.
    request_stop(study)
    options.is_asked = True
    if not options.json:
        _tell(asked)
    if options.wait:
        _wait(study, folder, asked)
    if options.json:
        print_json({"asked": [_plain(row) for row in asked], "stopped": options.wait})
    elif options.wait and asked:
        print_lines(["stopped; `khmer-tuner resume` goes on"])
    return SUCCESS


def _running(study: optuna.Study, folder: OutputFolder) -> Sequence[StatusRow]:
    from studies import study_status

    return study_status(study, folder).running


def _wait(study: optuna.Study, folder: OutputFolder, asked: Sequence[StatusRow]) -> None:
    """Wait until the trials that were running have stopped; trials that start later are not waited for."""
    time.sleep(_POLL_S)
    # A worker that was between two trials has claimed its next one by now, and stops it at once.
    meant = {_attempt(row) for row in (*asked, *_running(study, folder))}
    while meant & {_attempt(row) for row in _running(study, folder)}:
        time.sleep(_POLL_S)


def _attempt(row: StatusRow) -> tuple[int, int]:
    return row.number, row.attempts


def _tell(asked: Sequence[StatusRow]) -> None:
    if not asked:
        print_lines(["no trial is running now"])
    for row in asked:
        process = f"process {row.worker_pid}" if row.worker_pid else "a process on another machine"
        epochs = "1 epoch" if row.epochs == 1 else f"{row.epochs} epochs"
        print_lines([f"{row.name} (trial {row.number}): {epochs} done, stops after the current one; {process}"])


def _plain(row: StatusRow) -> dict[str, object]:
    return {"number": row.number, "name": row.name, "epochs": row.epochs, "worker_pid": row.worker_pid}


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
