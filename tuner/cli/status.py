"""``status``: how a study stands."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
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
    for rows in _grouped(status.rows):
        table.add_row(*(_cells(rows[0]) if len(rows) == 1 else _waiting_cells(rows)))
    console.print(table)
    console.print()
    for line in _lines(status):
        console.print(line, soft_wrap=True)


def _lines(status: StudyStatus) -> list[str]:
    """Return what a study comes to, and what it still owes."""
    lines = [", ".join(f"{count} {state}" for state, count in status.counts.items() if count) or "no trials yet"]
    if (search := status.search) is not None:
        lines.append(
            f"search: {search.ended} of {search.budget} trials, sampler {search.sampler}, pruner {search.pruner}"
        )
    if status.best is not None:
        lines.append(f"best: {status.best.name}, {status.monitor} {status.best.best_value:.4f}")
    if target_texts := [f"{name} {value:g}" for name, value in status.targets if value is not None]:
        met = ", ".join(status.met_by[:3]) + (f" and {len(status.met_by) - 3} more" if len(status.met_by) > 3 else "")
        lines.append(f"targets ({', '.join(target_texts)}): {f'met by {met}' if met else 'not met yet'}")
    if status.owed:
        lines.append(f"owed: {_owed_text(status)}; `khmer-tuner resume` goes on")
    return lines


def _owed_text(status: StudyStatus) -> str:
    interrupted, waiting = status.counts["interrupted"], status.owed - status.counts["interrupted"]
    parts = [f"{interrupted} interrupted"] if interrupted else []
    return ", ".join([*parts, f"{waiting} not begun"] if waiting else parts)


def _grouped(rows: Sequence[StatusRow]) -> Iterator[list[StatusRow]]:
    """Yield the rows one by one, but search trials that wait one after the other together."""
    from tuner.display.progress import is_search

    for waiting, group in groupby(rows, lambda row: row.state.value == "waiting" and is_search(row.name)):
        members = list(group)
        yield from [members] if waiting else ([row] for row in members)


def _waiting_cells(rows: Sequence[StatusRow]) -> list[str]:
    numbers = f"{rows[0].number}-{rows[-1].number}"
    return [numbers, f"{len(rows)} search trials", "waiting", "-", "0", "-", "-", "-"]


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
