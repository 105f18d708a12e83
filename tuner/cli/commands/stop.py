"""``stop``: ask all processes that work on a study to end after their epoch."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS
from tuner.cli.options import Command, add_json_option, add_study_options

if TYPE_CHECKING:
    import optuna

    from studies import OutputFolder, StatusRow

_POLL_S = 0.5


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``stop``."""
    parser.add_argument("--wait", action="store_true", help="return when the trials that were running have stopped")
    parser.set_defaults(is_asked=False)
    add_json_option(parser)
    add_study_options(parser)


def run(options: argparse.Namespace) -> int:
    """Leave the request in the study, and say who will follow it."""
    from studies import load_study_for_changes, request_stop

    study, folder = load_study_for_changes(options.output_dir, storage_url=options.storage, name=options.study)
    asked = _running(study, folder)
    # Also if nothing is: a process may just be between two trials.
    request_stop(study)
    options.is_asked = True
    if not options.json:
        _tell(asked)
    if options.wait:
        _wait(study, folder, asked)
    if options.json:
        told = {"asked": [_plain(row) for row in asked], "stopped": options.wait}
        print(json.dumps(told, ensure_ascii=False, indent=2))
    elif options.wait and asked:
        print("stopped; `khmer-tuner resume` goes on")
    return SUCCESS


def _running(study: optuna.Study, folder: OutputFolder) -> list[StatusRow]:
    """Return the trials that somebody works on."""
    from studies import RowState, study_status

    return [row for row in study_status(study, folder).rows if row.state is RowState.RUNNING]


def _wait(study: optuna.Study, folder: OutputFolder, asked: Sequence[StatusRow]) -> None:
    """Wait until nobody works on what was asked to stop; what is begun afterwards is not meant."""
    time.sleep(_POLL_S)
    # A process that was between two trials has taken its next one by now, and leaves it at once.
    meant = {_attempt(row) for row in (*asked, *_running(study, folder))}
    while meant & {_attempt(row) for row in _running(study, folder)}:
        time.sleep(_POLL_S)


def _attempt(row: StatusRow) -> tuple[int, int]:
    return row.number, row.attempts


def _tell(asked: Sequence[StatusRow]) -> None:
    if not asked:
        print("no trial is running now")
    for row in asked:
        process = f"process {row.worker_pid}" if row.worker_pid else "a process on another machine"
        epochs = "1 epoch" if row.epochs == 1 else f"{row.epochs} epochs"
        print(f"{row.name} (trial {row.number}): {epochs} done, stops after the current one; {process}", flush=True)


def _plain(row: StatusRow) -> dict[str, object]:
    return {"number": row.number, "name": row.name, "epochs": row.epochs, "worker_pid": row.worker_pid}


COMMAND = Command(
    name="stop",
    summary="ask whoever works on a study to stop after the current epoch; `resume` goes on",
    examples="""\
  khmer-tuner stop
  khmer-tuner stop --wait

Runs with several workers, workers in other terminals and on other machines stop alike. Results are written then. What
is begun afterwards is not stopped.""",
    add_options=add_options,
    run=run,
)
