"""Lines about a whole study for displays and `khmer-tuner status`: counts, best, last and remaining time."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.cells import cell_len
from rich.filesize import decimal

from search_spaces import TrainingConfig
from search_spaces.diagnostics.plural import counted
from studies import DiskUsage, RemainingTime, RowState, StatusRow, StudyStatus
from tuner.display.lines import clock, end_text
from tuner.display.terminal import ambiguous_cells, shown_path

_LAST_SHOWN = 3
_MET_SHOWN = 3
_KINDS_SHOWN = 3


def whole_line(status: StudyStatus, workers: int) -> str:
    """Return the number of trials in each state and the number of workers."""
    if not status.total:
        return "no trials yet"
    done = f"{status.ended:,} of {status.total:,} trials finished"
    failed = f" ({status.failed:,} failed)" if status.failed else ""
    at_work = f"; {counted(workers, 'worker')}" if workers else ""
    return ", ".join([f"{done}{failed}", *_pending_counts(status)]) + at_work


def work_line(status: StudyStatus, workers: int) -> str | None:
    """Return the number of workers, pending and failed trials; None if all are 0."""
    failed = [f"{status.failed:,} failed"] if status.failed else []
    parts = [*([counted(workers, "worker")] if workers else []), *_pending_counts(status), *failed]
    return f"status: {', '.join(parts)}" if parts else None


def best_line(status: StudyStatus, named: Callable[[str], str] = str) -> str | None:
    """Return the best completed trial, with its name as `named` returns it; None if no trial has completed."""
    return None if status.best is None else f"best: {_value(status, status.best, named)}"


def best_running_line(status: StudyStatus, named: Callable[[str], str] = str) -> str | None:
    """Return the best running trial, with its name as `named` returns it; None unless it beats the best completed."""
    done, running = status.best, status.best_of(status.running)
    if running is None or (done is not None and done.best_value == running.best_value):
        return None
    is_better = done is None or status.best_of([done, running]) is running
    return f"best running: {_value(status, running, named)}" if is_better else None


def last_line(status: StudyStatus, named: Callable[[str], str] = str, width: int = 80) -> str | None:
    """Return the trials that ended last and why, the latest first; None if no trial has ended.

    Args:
        status: The study.
        named: Returns the text to show for a trial's name.
        width: Columns of the terminal; up to three trials are shown if they fit, and always at least one.
    """
    ends = [f"{named(row.name)} {end_text(row)}" for row in status.last_first[:_LAST_SHOWN]]
    lines = [f"last ended: {', '.join(ends[:count])}" for count in range(len(ends), 0, -1)]
    shortest = lines[-1] if lines else None
    return next((line for line in lines if cell_len(line) + ambiguous_cells(line) <= width), shortest)


def remaining_line(status: StudyStatus, remaining: RemainingTime | None) -> str:
    """Return the line with the remaining time of the study."""
    return f"remaining: {remaining_text(status, remaining) or 'unknown until enough epochs have been timed'}"


def remaining_text(status: StudyStatus, remaining: RemainingTime | None) -> str:
    """Return the remaining time and the number of pending trials that it includes; "" if the time is unknown."""
    if remaining is None:
        return ""
    pending = f" including {counted(status.pending, 'pending trial')}" if status.pending else ""
    return f"{time_text(remaining)}{pending}"


def time_text(remaining: RemainingTime) -> str:
    """Return a remaining time, and whether it is an upper bound."""
    return f"{'at most' if remaining.at_most else 'about'} {clock(remaining.seconds)}"


def search_line(status: StudyStatus) -> str | None:
    """Return the progress of the search, its sampler and pruner; None if the study has no search."""
    if (search := status.search) is None:
        return None
    return f"search: {search.ended:,} of {search.budget:,} trials, sampler {search.sampler}, pruner {search.pruner}"


def targets_line(status: StudyStatus) -> str | None:
    """Return the targets and the trials that met them all; None if no target is set."""
    texts = [f"{name} {value:g}" for name, value in status.targets if value is not None]
    if not texts:
        return None
    return f"targets ({', '.join(texts)}): {status.met_text(_MET_SHOWN)}"


def study_command(name: str, output_dir: Path) -> str:
    """Return a shell command for a study."""
    folder = shown_path(output_dir)
    is_default = folder == TrainingConfig.output_dir
    return f"khmer-tuner {name}" + ("" if is_default else f" --output-dir {shlex.quote(folder)}")


def pending_line(status: StudyStatus, remaining: RemainingTime | None, output_dir: Path) -> str | None:
    """Return the pending trials and the command that trains them; None if there are none or a worker is running.

    Args:
        status: The study.
        remaining: The time that one worker needs for them; None if unknown.
        output_dir: The study's output folder.
    """
    if not status.pending or status.running:
        return None
    interrupted = status.counts[RowState.INTERRUPTED]
    counts = {"interrupted": interrupted, "waiting": status.pending - interrupted}
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    parts += [f"{time_text(remaining)} with one worker"] if remaining is not None else []
    return f"pending: {', '.join(parts)}; `{study_command('resume', output_dir)}` trains them"


def disk_line(disk: DiskUsage) -> str:
    """Return the disk usage of the study, its three largest parts, and the free space."""
    sizes = {what: size for what, size in asdict(disk).items() if what != "free"}
    largest = sorted(sizes, key=lambda what: sizes[what], reverse=True)[:_KINDS_SHOWN]
    kinds = ", ".join(f"{what} {_size(sizes[what])}" for what in largest if sizes[what])
    return f"disk: {_size(disk.used)} ({kinds}), {_size(disk.free)} free"


def _size(size: int) -> str:
    return decimal(size, precision=0)  # with a decimal the line does not fit 80 columns


def _pending_counts(status: StudyStatus) -> list[str]:
    interrupted = status.counts[RowState.INTERRUPTED]
    counts = {"waiting": status.pending - interrupted, "interrupted": interrupted}
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def _value(status: StudyStatus, row: StatusRow, named: Callable[[str], str]) -> str:
    return f"{named(row.name)}, {status.monitor} {row.best_value:.4f}"
