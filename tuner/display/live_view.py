"""The picture that a terminal shows of a run: its study as a whole, and one trial in detail or a row for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from studies import StatusRow, StudyStatus, remaining_seconds
from tuner.display.bar import Bar
from tuner.display.lines import further_settings, settings, wrapped
from tuner.display.progress import RunningTrial, RunProgress, clock
from tuner.display.status_rows import is_search
from tuner.display.study_lines import ahead_line, best_line, last_line, left_line, left_text, work_line
from tuner.display.terminal import cut, spare_cells

_NAME_WIDTH = 20
_FEWEST_ROWS = 3
_LINES_BESIDE_ROWS = 9  # bar, what is hidden, work, best, ahead, left, last, and a little of what was printed before
_WIDE = 70  # columns from which on there is room for more figures

Column = tuple[str, Callable[[StatusRow], str]]


def picture(progress: RunProgress, width: int, height: int) -> RenderableType:
    """Return what there is to see of a run and its study on a terminal of so many columns and lines."""
    status = progress.status
    if not status.total:
        return Text("")
    running = status.running
    if len(running) == progress.workers == 1 and (own := progress.own.get(running[0].number)) is not None:
        return _one(progress, running[0], own, width)
    whole = _lines(width, *_study_lines(progress, width))
    if not running:
        return Group(bars(width, _whole(status)), *whole)
    shown = running[: max(_FEWEST_ROWS, height - _LINES_BESIDE_ROWS)]
    hidden = len(running) - len(shown)
    more = _lines(width, f"and {hidden} more running" if hidden else None)
    return Group(running_table(shown, width, progress), *more, *whole)


def bars(width: int, *rows: tuple[str, int, int, str]) -> RenderableType:
    """Return a bar for each name, number done, number in all and unit."""
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    names = [_short(name, width) for name, *_ in rows]
    for name, (_, done, total, unit) in zip(names, rows, strict=True):
        grid.add_row(name, Bar(done, total), f"{done:,}/{total:,} {unit}")
    return _with_room(grid, names, width)


def running_table(rows: Sequence[StatusRow], width: int, progress: RunProgress | None = None) -> RenderableType:
    """Return a row with a bar and figures for each running trial.

    Args:
        rows: The trials.
        width: Columns of the terminal.
        progress: The run that shows this: it has a bar for the whole study, and knows more of its own trials; None
            if it is none.
    """
    columns = _columns(width, progress)
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for _ in columns:
        grid.add_column(justify="right", no_wrap=True)
    headers = [Text(header, style="dim") for header, _ in columns]
    grid.add_row(*_head(progress.status if progress else None), *headers)
    names = [_short(row.name, width) for row in rows]
    for name, row in zip(names, rows, strict=True):
        share = progress.epoch_share(row) if progress else 0.0
        grid.add_row(name, Bar(row.epochs + share, row.num_epochs or 0), *(cell(row) for _, cell in columns))
    return _with_room(grid, names, width)


def _head(status: StudyStatus | None) -> tuple[RenderableType, RenderableType]:
    if status is None:
        return Text("running", style="dim"), ""
    return f"{status.ended:,}/{status.total:,} done", Bar(status.ended, status.total)


def _columns(width: int, progress: RunProgress | None) -> list[Column]:
    """Return the figures that a running trial's row has, for as many columns as there are."""
    epochs: Column = ("epochs", lambda row: f"{row.epochs}/{row.num_epochs or '-'}")
    best: Column = ("best", lambda row: "-" if row.best_value is None else f"{row.best_value:.4f}")
    at_most = "left at most" if width >= _WIDE else "left <="
    if progress is None:
        process: Column = ("process", lambda row: str(row.worker_pid or "elsewhere"))
        return [epochs, best, process, (at_most, lambda row: _clock(remaining_seconds(row)))]
    now: Column = ("now", partial(_now, progress))
    left: Column = (at_most, lambda row: _clock(progress.remaining_seconds(row)))
    return [epochs, best, now, left] if width >= _WIDE else [epochs, best, left]


def _now(progress: RunProgress, row: StatusRow) -> str:
    """Return the metric's last value, or which process trains a trial that is none of the run's own."""
    own = progress.own.get(row.number)
    if own is None:
        return f"by {row.worker_pid}" if row.worker_pid else "elsewhere"
    return "-" if own.metrics is None else f"{own.metrics.value(own.config.early_stopping_monitor):.4f}"


def _clock(seconds: float | None) -> str:
    return "-" if seconds is None else clock(seconds)


def _whole(status: StudyStatus) -> tuple[str, int, int, str]:
    return "trials", status.ended, status.total, "done"


def _study_lines(progress: RunProgress, width: int, left: str | None = None) -> list[str | None]:
    """Return what is said of the whole study; `left` instead of how long all of it takes, if it is given."""
    status, should_stop = progress.status, not (progress.status.running or progress.status.pending)
    return [
        work_line(status, progress.workers),
        best_line(status, _named),
        ahead_line(status, _named),
        None if should_stop else left or left_line(status, progress.remaining_time),
        last_line(status, _named, width),
    ]


def _one(progress: RunProgress, row: StatusRow, trial: RunningTrial, width: int) -> Group:
    """Return all that is known of the one trial that is running."""
    status = progress.status
    rows = bars(
        width,
        _whole(status),
        (trial.name, row.epochs, trial.config.num_epochs, "epochs"),
        (f"epoch {row.epochs + 1}", *trial.batches, "batches"),
    )
    lines = _lines(width, *_study_lines(progress, width, _times(progress, row)))
    return Group(rows, *_drawn(trial, width), *_figures(trial, width), *lines)


def _drawn(trial: RunningTrial, width: int) -> list[Text]:
    if not is_search(trial.name):
        return []
    drawn = [*f"drawn: {settings(trial.config)}".split(", "), *further_settings(trial.config)]
    return _lines(width, *wrapped(drawn, width), style="dim")


def _figures(trial: RunningTrial, width: int) -> list[Text]:
    metrics, signal, monitor = trial.metrics, trial.signal, trial.config.early_stopping_monitor
    if metrics is None or signal is None:
        return _lines(width, "the first epoch is on its way", style="dim")
    now = (
        f"now: char {metrics.val_char_accuracy:.4f}  seq {metrics.val_seq_accuracy:.4f}  loss {metrics.val_loss:.4f}"
        f"  (training loss {metrics.train_loss:.4f})"
    )
    patience = f"{signal.waited} of {signal.patience} epochs without gain"
    best = f"its best: {monitor} {signal.best or 0:.4f} in epoch {signal.best_epoch}  ({patience})"
    return [*_lines(width, now), *_lines(width, best, style="green" if signal.waited == 0 else "")]


def _times(progress: RunProgress, row: StatusRow) -> str:
    """Say how long the one trial takes that is running, and how long the rest."""
    status, whole, left = progress.status, progress.remaining_time, progress.remaining_seconds(row)
    if left is None:
        return left_line(status, whole)
    if not status.pending:
        return f"left: at most {clock(left)}"
    others = left_text(status, whole) or "the others are not timed yet"
    if whole is not None and whole.at_most:
        others = others.removeprefix("at most ")  # it has just been said
    return f"left: at most {clock(left)}, {others}"


def _lines(width: int, *texts: str | None, style: str = "") -> list[Text]:
    """Return the texts that there are as lines that no terminal breaks."""
    return [Text(cut(text, width), style=style, no_wrap=True) for text in texts if text is not None]


def _named(name: str) -> str:
    """Return a name that leaves room for what is said of it."""
    return cut(name, _NAME_WIDTH)


def _short(name: str, width: int) -> str:
    """Return a name that leaves room for a bar and figures."""
    return cut(name, min(_NAME_WIDTH, max(8, width // 4)))


def _with_room(grid: Table, names: Iterable[str], width: int) -> RenderableType:
    """Return a table that leaves free what its names take on terminals that give combining vowels a cell."""
    return Constrain(grid, width - max(map(spare_cells, names), default=0))
