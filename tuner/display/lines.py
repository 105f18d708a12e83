"""Text about single trials for progress displays."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from search_spaces import TrainingConfig
from search_spaces.diagnostics.names import is_search_trial_name
from search_spaces.diagnostics.plural import counted
from search_spaces.training_config import WITHOUT_EFFECT
from studies import RowState, StatusRow, TrialKind, TrialOutcome, TrialPhase, TrialRecord, WhyEnded
from tuner.display.terminal import printable

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
