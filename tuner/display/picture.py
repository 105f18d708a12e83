"""The picture that a terminal shows of a run: one trial in detail, or a row for each of several."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.display.lines import further_settings, settings, short_trial_line
from tuner.display.progress import Estimate, RunningTrial, RunProgress, clock, is_search

_NAME_WIDTH = 20
_FEWEST_ROWS = 3
_LINES_BESIDE_ROWS = 8  # bar, what is hidden, best, left, last, and a little of what was printed before


def picture(progress: RunProgress, height: int) -> RenderableType:
    """Return what there is to see of a run on a terminal of so many lines."""
    if not progress.total:
        return Text("")
    trials = [trial for _, trial in sorted(progress.running.items())]
    if not trials:
        return bars(_whole(progress))
    if len(trials) == 1:
        return _one(progress, trials[0])
    return _several(progress, trials, max(_FEWEST_ROWS, height - _LINES_BESIDE_ROWS))


def bars(*rows: tuple[str, int, int, str]) -> Table:
    """Return a bar for each name, number done, number in all and unit."""
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(max_width=24, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    for name, done, total, unit in rows:
        grid.add_row(name, ProgressBar(total=max(1, total), completed=done), f"{done:,}/{total:,} {unit}")
    return grid


def _whole(progress: RunProgress) -> tuple[str, int, int, str]:
    return "trials", progress.ended, progress.total, "done"


def _one(progress: RunProgress, trial: RunningTrial) -> Group:
    """Return all that is known of the one trial that is running."""
    rows = bars(
        _whole(progress),
        (trial.name, trial.epoch, trial.config.num_epochs, "epochs"),
        (f"epoch {trial.epoch + 1}", *trial.batches, "batches"),
    )
    return Group(rows, *_drawn(trial), *_figures(trial), *_ahead(progress, trial), _line(_times(progress, trial)))


def _drawn(trial: RunningTrial) -> list[Text]:
    if not is_search(trial.name):
        return []
    text = ", ".join([settings(trial.config), *further_settings(trial.config)])
    return [Text(f"drawn {text}", style="dim")]


def _figures(trial: RunningTrial) -> list[Text]:
    metrics, signal, monitor = trial.metrics, trial.signal, trial.config.early_stopping_monitor
    if metrics is None or signal is None:
        return [Text("the first epoch is on its way", style="dim")]
    now = (
        f"now   char {metrics.val_char_accuracy:.4f}  seq {metrics.val_seq_accuracy:.4f}  loss {metrics.val_loss:.4f}"
        f"  (training loss {metrics.train_loss:.4f})"
    )
    patience = f"{signal.waited} of {signal.patience} epochs without gain"
    best = f"best  {monitor} {signal.best or 0:.4f} in epoch {signal.best_epoch}  ({patience})"
    return [Text(now), Text(best, style="green" if signal.waited == 0 else "")]


def _ahead(progress: RunProgress, trial: RunningTrial) -> list[Text]:
    best = progress.best
    return [] if best is None or best.name == trial.name else [_line(f"ahead {best.name} {best.value:.4f}")]


def _times(progress: RunProgress, trial: RunningTrial) -> str:
    left, whole = trial.seconds_left(), progress.time_left()
    if left is None:
        return f"left  {_whole_time(progress, whole) or 'known when an epoch has been timed'}"
    if progress.waiting == 0:
        return f"left  at most {clock(left)}"
    others = _whole_time(progress, whole) or "the others are not timed yet"
    if whole is not None and whole.at_most:
        others = others.removeprefix("at most ")  # it has just been said
    return f"left  at most {clock(left)}, {others}"


def _whole_time(progress: RunProgress, whole: Estimate | None) -> str:
    if whole is None:
        return ""
    waiting = f" with the {progress.waiting} waiting" if progress.waiting else ""
    return f"{'at most' if whole.at_most else 'about'} {clock(whole.seconds)}{waiting}"


def _several(progress: RunProgress, trials: list[RunningTrial], most_rows: int) -> Group:
    """Return a row for each running trial, as many as there is room for."""
    lines = []
    if hidden := len(trials) - most_rows if len(trials) > most_rows else 0:
        lines.append(_line(f"and {hidden} more running"))
    if (best := progress.best) is not None:
        lines.append(_line(f"best  {best.name}, {progress.monitor} {best.value:.4f}"))
    whole = _whole_time(progress, progress.time_left())
    lines.append(_line(f"left  {whole or 'known when enough has been timed'}"))
    if progress.endings:
        lines.append(_line(f"last  {', '.join(map(short_trial_line, progress.endings))}"))
    return Group(_rows(progress, trials[:most_rows]), *lines)


def _rows(progress: RunProgress, trials: list[RunningTrial]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(max_width=_NAME_WIDTH, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=1)
    headers = ("epochs", "best", "now", "left at most")
    for _ in headers:
        grid.add_column(justify="right", no_wrap=True)
    _, ended, total, unit = _whole(progress)
    whole = ProgressBar(total=max(1, total), completed=ended)
    grid.add_row(f"{ended:,}/{total:,} {unit}", whole, *(Text(header, style="dim") for header in headers))
    for trial in trials:
        grid.add_row(*_row(trial))
    return grid


def _row(trial: RunningTrial) -> list[RenderableType]:
    of, left = trial.config.num_epochs, trial.seconds_left()
    now = trial.metrics.value(trial.config.early_stopping_monitor) if trial.metrics else None
    return [
        trial.name,
        ProgressBar(total=of, completed=trial.epochs_done),
        f"{trial.epoch}/{of}",
        _figure(trial.best),
        _figure(now),
        "-" if left is None else clock(left),
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
