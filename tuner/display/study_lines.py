"""Lines about a study for displays and `khmer-tuner status`: trial counts, best and last trials, remaining time."""

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


def trials_line(status: StudyStatus, workers: int) -> str:
    """Format the number of trials in each state and the number of workers."""
    if not status.total:
        return "no trials yet"
    done = f"{status.ended:,} of {status.total:,} trials finished"
    failed = f" ({status.failed:,} failed)" if status.failed else ""
    working = f"; {counted(workers, 'worker')}" if workers else ""
    return ", ".join([f"{done}{failed}", *_pending_counts(status)]) + working


def workers_line(status: StudyStatus, workers: int) -> str | None:
    """Format the numbers of workers, pending trials and failed trials; None if all are 0."""
    failed = [f"{status.failed:,} failed"] if status.failed else []
    parts = [*([counted(workers, "worker")] if workers else []), *_pending_counts(status), *failed]
    return f"status: {', '.join(parts)}" if parts else None


def best_line(status: StudyStatus, format_name: Callable[[str], str] = str) -> str | None:
    """Format the best completed trial, its name with `format_name`; None if no trial has completed."""
    return None if status.best is None else f"best: {_value(status, status.best, format_name)}"


def best_running_line(status: StudyStatus, format_name: Callable[[str], str] = str) -> str | None:
    """Format the best running trial, its name with `format_name`; None unless it beats the best completed trial."""
    done, running = status.best, status.best_of(status.running)
    if running is None or (done is not None and done.best_value == running.best_value):
        return None
    is_better = done is None or status.best_of([done, running]) is running
    return f"best running: {_value(status, running, format_name)}" if is_better else None


def last_line(status: StudyStatus, format_name: Callable[[str], str] = str, width: int = 80) -> str | None:
    """Format the trials that ended last and why they ended, latest first; None if no trial has ended.

    Args:
        status: The study.
        format_name: Returns the text to show for a trial's name.
        width: Columns of the terminal; up to three trials are shown if they fit, and always at least one.
    """
    ends = [f"{format_name(row.name)} {end_text(row)}" for row in status.last_first[:_LAST_SHOWN]]
    lines = [f"last ended: {', '.join(ends[:count])}" for count in range(len(ends), 0, -1)]
    shortest = lines[-1] if lines else None
    return next((line for line in lines if cell_len(line) + ambiguous_cells(line) <= width), shortest)


def remaining_line(status: StudyStatus, remaining: RemainingTime | None) -> str:
    """Format the line with the study's remaining time."""
    return f"remaining: {remaining_text(status, remaining) or 'unknown until enough epochs have been timed'}"


def remaining_text(status: StudyStatus, remaining: RemainingTime | None) -> str:
    """Format the remaining time and the number of pending trials that it includes; "" if the time is unknown."""
    if remaining is None:
        return ""
    pending = f" including {counted(status.pending, 'pending trial')}" if status.pending else ""
    return f"{time_text(remaining)}{pending}"


def time_text(remaining: RemainingTime) -> str:
    """Format the remaining time after ``at most`` (an upper bound) or ``about`` (an estimate)."""
    return f"{'at most' if remaining.at_most else 'about'} {clock(remaining.seconds)}"


def search_line(status: StudyStatus) -> str | None:
    """Format the search's progress, sampler, pruner and parallelism; None if the study has no search."""
    if (search := status.search) is None:
        return None
    settings = f"sampler {search.sampler}, pruner {search.pruner}"
    if search.parallelism is not None:
        settings += f", parallelism {search.parallelism}"
    return f"search: {search.ended:,} of {search.budget:,} trials, {settings}"


def prior_line(status: StudyStatus) -> str | None:
    """Format the earlier studies from which the search learns; None without a warm start."""
    sources = status.search.prior if status.search else ()
    return f"prior: {', '.join(source.text for source in sources)}" if sources else None


def targets_line(status: StudyStatus) -> str | None:
    """Format the targets and the trials that have met all of them; None if no target is set."""
    texts = [f"{name} {value:g}" for name, value in status.targets if value is not None]
    if not texts:
        return None
    return f"targets ({', '.join(texts)}): {status.met_text(_MET_SHOWN)}"


def study_command(name: str, output_dir: Path) -> str:
    """Return the shell command ``khmer-tuner NAME`` for the study of an output folder."""
    folder = shown_path(output_dir)
    is_default = folder == TrainingConfig.output_dir
    return f"khmer-tuner {name}" + ("" if is_default else f" --output-dir {shlex.quote(folder)}")


def pending_line(status: StudyStatus, remaining: RemainingTime | None, output_dir: Path) -> str | None:
    """Format the pending trials and the command that trains them; None if no trial is pending or a worker is running.

    Args:
        status: The study.
        remaining: The time that one worker needs for the pending trials; None if unknown.
        output_dir: The study's output folder.
    """
    if not status.pending or status.running:
        return None
    interrupted = status.counts[RowState.INTERRUPTED]
    counts = {"interrupted": interrupted, "waiting": status.pending - interrupted}
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    parts += [f"{time_text(remaining)} with one worker"] if remaining is not None else []
    return f"pending: {', '.join(parts)}; run `{study_command('resume', output_dir)}` to continue"


def disk_line(disk: DiskUsage) -> str:
    """Format the study's disk usage with its three largest parts, and the free space."""
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


def _value(status: StudyStatus, row: StatusRow, format_name: Callable[[str], str]) -> str:
    return f"{format_name(row.name)}, {status.monitor} {row.best_value:.4f}"
