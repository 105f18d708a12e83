"""What displays and `status` say of a whole study: a line each for how far it is, its best, its last and its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from rich.cells import cell_len

from search_spaces.diagnostics.plural import counted, listed
from studies import DiskUsage, RemainingTime, RowState, StatusRow, StudyStatus, WhyEnded
from tuner.display.lines import reason
from tuner.display.progress import clock
from tuner.display.terminal import spare_cells

_LAST_SHOWN = 3
_MET_SHOWN = 3
_KINDS_SHOWN = 3
_UNITS = ("B", "kB", "MB", "GB", "TB")


def whole_line(status: StudyStatus, workers: int) -> str:
    """Say how many trials are done, failed and open, and how many work on them."""
    if not status.total:
        return "no trials yet"
    done = f"{status.ended:,} of {status.total:,} trials done"
    failed = f" ({status.failed:,} failed)" if status.failed else ""
    who = f"; {counted(workers, 'worker')}" if workers else ""
    return ", ".join([f"{done}{failed}", *_open(status)]) + who


def work_line(status: StudyStatus, workers: int) -> str | None:
    """Say how many work, on what and how well; how many trials are done is shown beside it. None without any."""
    failed = [f"{status.failed:,} failed"] if status.failed else []
    parts = [*([counted(workers, "worker")] if workers else []), *_open(status), *failed]
    return f"work: {', '.join(parts)}" if parts else None


def best_line(status: StudyStatus, named: Callable[[str], str] = str) -> str | None:
    """Say which trial is the best of those that completed; None if none has.

    Args:
        status: The study.
        named: Returns a trial's name as it is shown.
    """
    return None if status.best is None else f"best: {_value(status, status.best, named)}"


def ahead_line(status: StudyStatus, named: Callable[[str], str] = str) -> str | None:
    """Say which running trial is better than all that completed; None if none is.

    Args:
        status: The study.
        named: Returns a trial's name as it is shown.
    """
    done, running = status.best, status.best_of(status.running)
    if running is None or (done is not None and done.best_value == running.best_value):
        return None
    is_ahead = done is None or status.best_of([done, running]) is running
    return f"ahead: {_value(status, running, named)}, still running" if is_ahead else None


def last_line(status: StudyStatus, named: Callable[[str], str] = str, width: int = 80) -> str | None:
    """Say which trials ended last, the latest first, and why; None if none has.

    Args:
        status: The study.
        named: Returns a trial's name as it is shown.
        width: Cells that there are; of three trials as many are told as they have room for, one at least.
    """
    told = [f"{named(row.name)} {_end(row)}" for row in status.last_first[:_LAST_SHOWN]]
    lines = [f"last: {', '.join(told[:count])}" for count in range(len(told), 0, -1)]
    return next((line for line in lines if cell_len(line) + spare_cells(line) <= width), lines[-1] if lines else None)


def left_line(status: StudyStatus, left: RemainingTime | None) -> str:
    """Say how long the rest takes."""
    return f"left: {left_text(status, left) or 'known when enough has been timed'}"


def left_text(status: StudyStatus, left: RemainingTime | None) -> str:
    """Return how long the rest takes, and how much of it nobody has begun; nothing if it is not known."""
    if left is None:
        return ""
    waiting = f" with the {status.pending:,} waiting" if status.pending else ""
    return f"{time_text(left)}{waiting}"


def time_text(left: RemainingTime) -> str:
    """Return how long something takes, and whether that is a bound."""
    return f"{'at most' if left.at_most else 'about'} {clock(left.seconds)}"


def search_line(status: StudyStatus) -> str | None:
    """Say how far the open search is, and how it searches; None if the study has none."""
    if (search := status.search) is None:
        return None
    return f"search: {search.ended:,} of {search.budget:,} trials, sampler {search.sampler}, pruner {search.pruner}"


def targets_line(status: StudyStatus) -> str | None:
    """Say who met the targets; None if there are none."""
    texts = [f"{name} {value:g}" for name, value in status.targets if value is not None]
    if not texts:
        return None
    met = listed(status.met_by, _MET_SHOWN)
    return f"targets ({', '.join(texts)}): {f'met by {met}' if met else 'not met yet'}"


def pending_line(status: StudyStatus, left: RemainingTime | None) -> str | None:
    """Say what is still to do and how to go on; None if that is nothing, or somebody works on it.

    Args:
        status: The study.
        left: How long one worker takes for it; None if that is not known.
    """
    if not status.pending or status.running:
        return None
    interrupted = status.counts[RowState.INTERRUPTED]
    counts = {"interrupted": interrupted, "not begun": status.pending - interrupted}
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    parts += [f"{time_text(left)} for one worker"] if left is not None else []
    return f"owed: {', '.join(parts)}; `khmer-tuner resume` goes on"


def disk_line(disk: DiskUsage) -> str:
    """Say how much room the study takes, mostly what for, and how much is left."""
    sizes = {what: size for what, size in asdict(disk).items() if what != "free"}
    largest = sorted(sizes, key=lambda what: sizes[what], reverse=True)[:_KINDS_SHOWN]
    kinds = ", ".join(f"{what} {size_text(sizes[what])}" for what in largest if sizes[what])
    return f"disk: {size_text(disk.used)} ({kinds}), {size_text(disk.free)} free"


def size_text(size: int) -> str:
    """Return bytes as people read them, with two or three digits."""
    number, units = float(size), iter(_UNITS)
    unit = next(units)
    while number >= 999.5 and unit != _UNITS[-1]:
        number, unit = number / 1000, next(units)
    return f"{number:.1f} {unit}" if 0 < number < 9.95 and unit != "B" else f"{number:,.0f} {unit}"


def _open(status: StudyStatus) -> list[str]:
    interrupted = status.counts[RowState.INTERRUPTED]
    counts = {"waiting": status.pending - interrupted, "interrupted": interrupted}
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def _end(row: StatusRow) -> str:
    if row.state is not RowState.FAILED:
        return reason(row)
    return "FAILED" if row.why_ended == WhyEnded.FAILED else f"FAILED ({reason(row)})"


def _value(status: StudyStatus, row: StatusRow, named: Callable[[str], str]) -> str:
    return f"{named(row.name)}, {status.monitor} {row.best_value:.4f}"
