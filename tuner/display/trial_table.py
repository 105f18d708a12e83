"""The table of a study's trials: all trials, or the most important trials of a large study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.table import Table

from studies import RowState, StatusRow, StudyStatus, TrialKind
from tuner.display.lines import clock, value_text
from tuner.display.terminal import plain_table

_HEADERS = ("trial", "name", "state", "best", "epochs", "why ended", "time", "process", "params", "ms")
_WIDE = 70
_SEARCH_TRIAL_CELLS = len("search_0000")
_MAX_ROWS = 40
_BEST_SHOWN = 5
_FAILED_SHOWN = 10
_LAST_SHOWN = 5


def trial_table(status: StudyStatus, width: int, *, show_all: bool) -> tuple[Table, int]:
    """Return the table of a study's trials, and the number of finished trials without their own row.

    Args:
        status: The study.
        width: Columns of the terminal; below 70 columns the table omits the process. The number of parameters and the
            latency in ms are shown only if every row fits on one line.
        show_all: Whether each trial gets a row of its own. Otherwise consecutive waiting search trials share a row. If
            there are more than forty other trials, waiting presets also share rows, and so do finished trials other
            than the best, last and failed ones.
    """
    groups = [[row] for row in status.rows] if show_all else list(_grouped(status))
    lines = [_cells(rows[0]) if len(rows) == 1 else _group_cells(status, rows) for rows in groups]
    cells = sum(max(map(cell_len, column)) + 1 for column in zip(_HEADERS, *lines, strict=True)) - 1
    headers = _HEADERS if cells <= width else _HEADERS[: -2 if width >= _WIDE else -3]
    table = plain_table(*headers, right=(0, 3, 4, 6, 7, 8, 9))
    for line in lines:
        table.add_row(*line[: len(headers)])
    return table, sum(len(rows) for rows in groups if len(rows) > 1 and rows[0].has_ended)


def _grouped(status: StudyStatus) -> Iterator[list[StatusRow]]:
    shown = _shown(status)

    def group_key(row: StatusRow) -> tuple[str, int]:
        if row.number in shown:
            return "alone", row.number
        return ("finished" if row.has_ended else f"waiting {row.kind.value}"), 0

    for _, group in groupby(status.rows, group_key):
        yield list(group)


def _shown(status: StudyStatus) -> set[int]:
    """Return the numbers of the trials that get their own row."""
    rows = [row for row in status.rows if not (row.state is RowState.WAITING and row.kind is TrialKind.SEARCH)]
    if len(rows) > _MAX_ROWS:
        ended = status.last_first
        failed = [row for row in ended if row.state is RowState.FAILED]
        started = [row for row in rows if row.state in (RowState.RUNNING, RowState.INTERRUPTED)]
        rows = [*status.ranking[:_BEST_SHOWN], *failed[:_FAILED_SHOWN], *ended[:_LAST_SHOWN], *started]
    return {row.number for row in rows}


def _group_cells(status: StudyStatus, rows: Sequence[StatusRow]) -> list[str]:
    numbers = f"{rows[0].number}-{rows[-1].number}"
    if not rows[0].has_ended:
        what = "search trials" if rows[0].kind is TrialKind.SEARCH else "experiments"
        return [numbers, f"{len(rows):,} {what}", "waiting", "-", "0", *["-"] * 5]
    best = status.best_of(row for row in rows if row.state is not RowState.FAILED)
    best_value = value_text(best.best_value if best else None)
    return [numbers, f"{len(rows):,} more trials", "finished", best_value, *["-"] * 6]


def _cells(row: StatusRow) -> list[str]:
    return [
        str(row.number),
        row.name.ljust(_SEARCH_TRIAL_CELLS),
        row.state.value,
        value_text(row.best_value),
        str(row.epochs),
        row.reason or "-",
        clock(row.seconds),
        "-" if row.worker_pid is None else str(row.worker_pid or "remote"),
        "-" if row.parameters is None else f"{row.parameters:,}",
        "-" if row.latency_ms is None else f"{row.latency_ms:.2f}",
    ]
