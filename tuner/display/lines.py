"""Lines about one trial, as displays print them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from search_spaces import TrainingConfig
from search_spaces.diagnostics.names import is_search_trial_name
from search_spaces.diagnostics.plural import counted
from search_spaces.training_config import WITHOUT_INFLUENCE
from studies import RowState, StatusRow, TrialKind, TrialOutcome, TrialPhase, TrialRecord, WhyEnded
from tuner.display.terminal import printable

# Settings that `settings` prints for each trial, and settings that are the same in the whole study.
_NOT_SAMPLED = WITHOUT_INFLUENCE | {"model_name", "batch_size", "learning_rate", "scheduler_type", "num_epochs", "seed"}
_NOT_SAMPLED |= {"early_stopping_monitor", "early_stopping_mode"}


def value_text(value: float | None) -> str:
    """Return a value of a metric; ``-`` for None."""
    return "-" if value is None else f"{value:.4f}"


def clock(seconds: float | None) -> str:
    """Return a duration as ``m:ss`` or ``h:mm:ss``; 0:00 if it is negative, ``-`` for None."""
    if seconds is None:
        return "-"
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def trial_line(record: TrialRecord) -> str:
    """Return how a trial of this run ended."""
    name, outcome = record.experiment_name, record.outcome
    if record.phase is TrialPhase.FAILED or outcome is None:
        return f"{name} FAILED: {failure(outcome)}"
    figures = f"best char {outcome.best_val_char_accuracy:.4f}, seq {outcome.best_val_seq_accuracy:.4f}"
    return f"{name}: {outcome.why_ended.text} at {outcome.total_epochs}, {figures}"


def row_line(row: StatusRow, monitor: str) -> str:
    """Return how a trial of another process ended."""
    best = "" if row.best_value is None else f", best {monitor} {row.best_value:.4f}"
    return f"{row.name}: {end_text(row)} at {row.epochs}{best} (another process)"


def end_text(row: StatusRow) -> str:
    """Return how and why a trial ended."""
    reason = row.reason or "ended from outside"
    if row.state is not RowState.FAILED:
        return reason
    return "FAILED" if row.why_ended == WhyEnded.FAILED else f"FAILED ({reason})"


def title(number: int, name: str, *remarks: str) -> str:
    """Return a trial's name and number; the name of a search trial contains its number."""
    inner = [*([] if is_search_trial_name(name) else [f"trial {number}"]), *remarks]
    return f"{name} ({', '.join(inner)})" if inner else name


def finished_lines(records: Sequence[TrialRecord]) -> list[str]:
    """Return which presets are not trained again, and how many search trials."""
    lines = []
    for record in records:
        if record.kind is TrialKind.PRESET and record.phase is TrialPhase.FAILED:
            again = "`khmer-tuner resume --retry-failed` trains it again"
            lines.append(f"{record.experiment_name} has failed already; {again}")
        elif record.kind is TrialKind.PRESET:
            lines.append(f"{record.experiment_name} is finished already")
    phases = [record.phase for record in records if record.kind is TrialKind.SEARCH]
    failed = phases.count(TrialPhase.FAILED)
    if count := len(phases) - failed:
        lines.append(f"{counted(count, 'search trial is', 'search trials are')} finished already")
    if failed:
        lines.append(f"{counted(failed, 'search trial has', 'search trials have')} failed already")
    return lines


def settings(config: TrainingConfig) -> str:
    """Return the settings that are shown for each trial."""
    return (
        f"{config.model_name}, batch {config.batch_size}, lr {config.learning_rate:.4g}, {config.scheduler_type}, "
        f"up to {config.num_epochs} epochs"
    )


def further_settings(config: TrainingConfig) -> list[str]:
    """Return the other settings of a search trial that differ from the default, one text each."""
    defaults = asdict(TrainingConfig())
    return [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in asdict(config).items()
        if name not in _NOT_SAMPLED and value != defaults[name]
    ]


def wrapped(items: Sequence[str], width: int) -> list[str]:
    """Return the items as lines of at most `width` characters; no item is broken."""
    text = ", ".join(item.replace(" ", "\N{NO-BREAK SPACE}") for item in items)
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def failure(outcome: TrialOutcome | None) -> str:
    """Return why a trial failed, in one line."""
    if outcome is None:
        return "ended from outside, without a reason given"
    text = outcome.error_message.strip() or outcome.why_ended.text
    first = printable(text.splitlines()[0])
    return f"{outcome.error_type}: {first}" if outcome.error_type else first
