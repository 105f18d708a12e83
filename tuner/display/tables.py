"""Tables of trials: all trials of a study, and the running ones in the live view of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from studies import RowState, StatusRow, StudyStatus, TrialKind, remaining_seconds
from tuner.display.lines import (
    best_line,
    best_running_line,
    clock,
    further_settings,
    last_line,
    remaining_line,
    remaining_text,
    settings,
    value_text,
    workers_line,
    wrapped,
)
from tuner.display.progress import RunningTrial, RunProgress
from tuner.display.terminal import ambiguous_cells, plain_table, printable, truncate

_NAME_WIDTH = 20
_FEWEST_ROWS = 3
_OTHER_LINES = 9  # header, hidden trials, study, best, best running, remaining, last, and two lines printed above
_WIDE = 70  # columns; a narrower terminal shows fewer values per trial

Column = tuple[str, Callable[[StatusRow], str]]


def live_view(progress: RunProgress, width: int, height: int) -> RenderableType:
    """Return the live view for a terminal of `width` columns and `height` lines; empty if the study has no trials."""
    status = progress.status
    if not status.total:
        return Text("")
    running = status.running
    if len(running) == progress.workers == 1 and (own := progress.own_trials.get(running[0].number)) is not None:
        return _detailed(progress, own, width)
    lines = _lines(width, *_study_lines(progress, width))
    if not running:
        return Group(bars(width, ("trials", status.ended, status.total, "done")), *lines)
    shown = running[: max(_FEWEST_ROWS, height - _OTHER_LINES)]
    hidden = len(running) - len(shown)
    more = _lines(width, f"and {hidden} more running" if hidden else None)
    return Group(running_table(shown, width, progress), *more, *lines)


def bars(width: int, *rows: tuple[str, int, int, str]) -> RenderableType:
    """Return a table with a progress bar per row.

    Args:
        width: Columns of the terminal.
        rows: Name, finished number, total number and unit of each bar.
    """
    cells: list[list[RenderableType]] = []
    for name, done, total, unit in rows:
        cells.append([_short(name, width), _bar(done, total), f"{done:,}/{total:,} {unit}"])
    return _table(cells, width)


def running_table(rows: Sequence[StatusRow], width: int, progress: RunProgress | None = None) -> RenderableType:
    """Return a table with a progress bar and values for each running trial.

    Args:
        rows: The trials.
        width: Columns of the terminal.
        progress: The progress of the run that shows the table. It adds a bar for the whole study and the current values
            of the run's own trials. None for a command that does not train.
    """
    columns = _columns(width, progress)
    first: list[RenderableType] = [Text("running", style="dim"), ""]
    if progress is not None:
        ended, total = progress.status.ended, progress.status.total
        first = [f"{ended:,}/{total:,} done", _bar(ended, total)]
    cells = [[*first, *(Text(header, style="dim") for header, _ in columns)]]
    for row in rows:
        fraction = progress.epoch_fraction(row) if progress else 0.0
        bar = _bar(row.epochs + fraction, row.num_epochs or 0)
        cells.append([_short(row.name, width), bar, *(cell(row) for _, cell in columns)])
    return _table(cells, width)


def _columns(width: int, progress: RunProgress | None) -> list[Column]:
    """Return the header and the cell function of each value column that fits the terminal."""
    epochs: Column = ("epochs", lambda row: f"{row.epochs}/{row.num_epochs or '-'}")
    best: Column = ("best", lambda row: value_text(row.best_value))
    header = "remaining <=" if width >= _WIDE else "ETA <="
    if progress is None:
        process: Column = ("process", lambda row: str(row.worker_pid or "remote"))
        return [epochs, best, process, (header, lambda row: clock(remaining_seconds(row)))]
    last: Column = ("last", lambda row: _last_value(progress.own_trials.get(row.number), row))
    remaining: Column = (header, lambda row: clock(progress.remaining_seconds(row)))
    return [epochs, best, last, remaining] if width >= _WIDE else [epochs, best, remaining]


def _last_value(own: RunningTrial | None, row: StatusRow) -> str:
    """Format a trial's last metric value; for a trial of another process, whose metric is unknown, the process id."""
    if own is None:
        return f"pid {row.worker_pid}" if row.worker_pid else "remote"
    return value_text(own.metrics.value(own.config.early_stopping_monitor) if own.metrics else None)


def _study_lines(progress: RunProgress, width: int, remaining: str | None = None) -> list[str | None]:
    """Return the lines about the study; `remaining` replaces the line with the study's remaining time."""
    status = progress.status
    is_finished = not (status.running or status.pending)
    return [
        workers_line(status, progress.workers),
        best_line(status, _cut_name),
        best_running_line(status, _cut_name),
        None if is_finished else remaining or remaining_line(status, progress.remaining_time),
        last_line(status, _cut_name, width),
    ]


def _detailed(progress: RunProgress, trial: RunningTrial, width: int) -> Group:
    status, row = progress.status, trial.row
    rows = bars(
        width,
        ("trials", status.ended, status.total, "done"),
        (row.name, row.epochs, trial.config.num_epochs, "epochs"),
        (f"epoch {trial.epoch}", *trial.batches, "batches"),
    )
    lines = _lines(width, *_study_lines(progress, width, _remaining(progress, row)))
    return Group(rows, *_sampled(trial, width), *_epoch_lines(trial, width), *lines)


def _sampled(trial: RunningTrial, width: int) -> list[Text]:
    if trial.row.kind is not TrialKind.SEARCH:
        return []
    sampled = [*f"sampled: {settings(trial.config)}".split(", "), *further_settings(trial.config)]
    return _lines(width, *wrapped(sampled, width), style="dim")


def _epoch_lines(trial: RunningTrial, width: int) -> list[Text]:
    metrics, signal, monitor = trial.metrics, trial.signal, trial.config.early_stopping_monitor
    if metrics is None or signal is None:
        return _lines(width, "first epoch in progress", style="dim")
    last = (
        f"last epoch: char {metrics.val_char_accuracy:.4f}  seq {metrics.val_seq_accuracy:.4f}"
        f"  loss {metrics.val_loss:.4f}  (training loss {metrics.train_loss:.4f})"
    )
    patience = f"patience used: {signal.waited} of {signal.patience}"
    best = f"best epoch: {signal.best_epoch}, {monitor} {signal.best or 0:.4f}  ({patience})"
    return [*_lines(width, last), *_lines(width, best, style="green" if signal.waited == 0 else "")]


def _remaining(progress: RunProgress, row: StatusRow) -> str:
    """Format the line with the remaining time of the only running trial and of the study."""
    status, study, trial = progress.status, progress.remaining_time, progress.remaining_seconds(row)
    if trial is None:
        return remaining_line(status, study)
    if not status.pending:
        return f"remaining: at most {clock(trial)}"
    others = remaining_text(status, study) or "unknown for the pending trials"
    return f"remaining: at most {clock(trial)} (this trial), {others.removeprefix('at most ')}"


def _table(rows: Sequence[Sequence[RenderableType]], width: int) -> RenderableType:
    """Return a table of names, bars and values that also fits terminals on which combining vowels occupy a cell."""
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for _ in rows[0][2:]:
        grid.add_column(justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    return Constrain(grid, width - max(ambiguous_cells(str(name)) for name, *_ in rows))


def _bar(done: float, total: int) -> ProgressBar:
    # A total of 0 means an unknown number of batches; Rich would show a full bar.
    return ProgressBar(
        total or 1, done if total else 0, style="bright_black", complete_style="cyan", finished_style="green"
    )


def _lines(width: int, *texts: str | None, style: str = "") -> list[Text]:
    """Return the texts other than None as lines, truncated so that no terminal wraps them."""
    return [Text(truncate(printable(text), width), style=style, no_wrap=True) for text in texts if text is not None]


def _cut_name(name: str) -> str:
    return truncate(name, _NAME_WIDTH)


def _short(name: str, width: int) -> str:
    return truncate(name, min(_NAME_WIDTH, max(8, width // 4)))


_HEADERS = ("trial", "name", "state", "best", "epochs", "why ended", "time", "process", "params", "ms")
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
