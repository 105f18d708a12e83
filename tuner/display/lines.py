"""Text about trials and studies for progress displays and `khmer-tuner status`."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.cells import cell_len
from rich.filesize import decimal

from search_spaces import TrainingConfig
from search_spaces.diagnostics.names import is_search_trial_name
from search_spaces.diagnostics.wording import counted
from search_spaces.training_config import WITHOUT_EFFECT
from studies import (
    DiskUsage,
    RemainingTime,
    RowState,
    StatusRow,
    StudyStatus,
    TrialKind,
    TrialOutcome,
    TrialPhase,
    TrialRecord,
    WhyEnded,
)
from tuner.display.terminal import ambiguous_cells, printable, shown_path

# Settings that `settings` already contains, and settings that are the same in the whole study.
_NOT_SHOWN = WITHOUT_EFFECT | {"model_name", "batch_size", "learning_rate", "scheduler_type", "num_epochs", "seed"}
_NOT_SHOWN |= {"early_stopping_monitor", "early_stopping_mode"}


def value_text(value: float | None) -> str:
    """Format a metric value with four decimals; None as ``-``."""
    return "-" if value is None else f"{value:.4f}"


def clock(seconds: float | None) -> str:
    """Format a duration as ``m:ss`` or ``h:mm:ss``; a negative one as ``0:00``, None as ``-``."""
    if seconds is None:
        return "-"
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def trial_line(record: TrialRecord) -> str:
    """Format the result of a finished trial that this run trained."""
    name, outcome = record.experiment_name, record.outcome
    if record.phase is TrialPhase.FAILED or outcome is None:
        return f"{name} FAILED: {failure(outcome)}"
    best = f"best char {outcome.best_val_char_accuracy:.4f}, seq {outcome.best_val_seq_accuracy:.4f}"
    return f"{name}: {outcome.why_ended.text} at epoch {outcome.total_epochs}, {best}"


def row_line(row: StatusRow, monitor: str) -> str:
    """Format the result of a finished trial that another process trained."""
    best = "" if row.best_value is None else f", best {monitor} {row.best_value:.4f}"
    return f"{row.name}: {end_text(row)} at epoch {row.epochs}{best} (another process)"


def end_text(row: StatusRow) -> str:
    """Format why a trial ended, for example ``early stopped`` or ``FAILED (crashed)``."""
    reason = row.reason or "ended externally"
    if row.state is not RowState.FAILED:
        return reason
    return "FAILED" if row.why_ended == WhyEnded.FAILED else f"FAILED ({reason})"


def title(number: int, name: str, *remarks: str) -> str:
    """Format a trial's name, number and remarks, without the number if it is part of the name (search trials)."""
    inner = [*([] if is_search_trial_name(name) else [f"trial {number}"]), *remarks]
    return f"{name} ({', '.join(inner)})" if inner else name


def finished_lines(records: Sequence[TrialRecord]) -> list[str]:
    """Return a line per finished preset, and lines with the numbers of finished and failed search trials."""
    lines = []
    for record in records:
        if record.kind is TrialKind.PRESET and record.phase is TrialPhase.FAILED:
            again = "`khmer-tuner resume --retry-failed` retries it"
            lines.append(f"{record.experiment_name} has already failed; {again}")
        elif record.kind is TrialKind.PRESET:
            lines.append(f"{record.experiment_name} is already finished")
    phases = [record.phase for record in records if record.kind is TrialKind.SEARCH]
    failed = phases.count(TrialPhase.FAILED)
    if count := len(phases) - failed:
        lines.append(f"{counted(count, 'search trial is', 'search trials are')} already finished")
    if failed:
        lines.append(f"{counted(failed, 'search trial has', 'search trials have')} already failed")
    return lines


def settings(config: TrainingConfig) -> str:
    """Format the main settings of a trial."""
    return (
        f"{config.model_name}, batch {config.batch_size}, lr {config.learning_rate:.4g}, {config.scheduler_type}, "
        f"up to {config.num_epochs} epochs"
    )


def further_settings(config: TrainingConfig) -> list[str]:
    """Format each other setting of a search trial that differs from its default."""
    defaults = asdict(TrainingConfig())
    return [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in asdict(config).items()
        if name not in _NOT_SHOWN and value != defaults[name]
    ]


def wrapped(items: Sequence[str], width: int) -> list[str]:
    """Join items with commas into lines of at most `width` characters; break lines only between items."""
    text = ", ".join(item.replace(" ", "\N{NO-BREAK SPACE}") for item in items)
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def failure(outcome: TrialOutcome | None) -> str:
    """Format the reason why a trial failed as one line."""
    if outcome is None:
        return "ended externally, no reason recorded"
    text = outcome.error_message.strip() or outcome.why_ended.text
    first = printable(text.splitlines()[0])
    return f"{outcome.error_type}: {first}" if outcome.error_type else first


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
    settings = f"sampler {search.sampler}, pruner {search.pruner}, parallelism {search.parallelism}"
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
    parts = _pending_counts(status)[::-1]
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
