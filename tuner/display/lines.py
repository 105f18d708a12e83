"""What displays say of one trial, in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from search_spaces import TrainingConfig
from search_spaces.training_config import WITHOUT_INFLUENCE
from studies import TrialKind, TrialOutcome, TrialPhase, TrialRecord, WhyEnded
from tuner.display.progress import is_search

REASONS = {
    WhyEnded.MAX_EPOCHS: "all epochs",
    WhyEnded.EARLY_STOPPED: "early stopped",
    WhyEnded.PRUNED: "pruned",
    WhyEnded.NONFINITE_LOSS: "loss infinite",
    WhyEnded.OUT_OF_MEMORY: "out of memory",
    WhyEnded.CRASHED: "crashed",
    WhyEnded.FAILED: "error",
}

# What every line says, and what a whole study agrees on.
_NOT_DRAWN = WITHOUT_INFLUENCE | {"model_name", "batch_size", "learning_rate", "scheduler_type", "num_epochs", "seed"}
_NOT_DRAWN |= {"early_stopping_monitor", "early_stopping_mode"}


def trial_line(record: TrialRecord) -> str:
    """Say how a trial ended."""
    outcome = record.outcome
    if record.phase is TrialPhase.FAILED or outcome is None:
        return f"{record.experiment_name} FAILED: {failure(outcome)}"
    return (
        f"{record.experiment_name}: {_end(outcome)}, best char {outcome.best_val_char_accuracy:.4f}, "
        f"seq {outcome.best_val_seq_accuracy:.4f}"
    )


def short_trial_line(record: TrialRecord) -> str:
    """Say how a trial ended, in a few words."""
    if record.phase is TrialPhase.FAILED or record.outcome is None:
        return f"{record.experiment_name} FAILED"
    return f"{record.experiment_name} {REASONS[record.outcome.why_ended]}"


def title(number: int, name: str, *remarks: str) -> str:
    """Return what a trial is called in a line: the name of a search trial has its number already."""
    inner = [*([] if is_search(name) else [f"trial {number}"]), *remarks]
    return f"{name} ({', '.join(inner)})" if inner else name


def finished_lines(records: Sequence[TrialRecord]) -> list[str]:
    """Say which presets are not trained again, and how many search trials."""
    lines = [_finished_line(record) for record in records if record.kind is TrialKind.PRESET]
    phases = [record.phase for record in records if record.kind is TrialKind.SEARCH]
    failed = phases.count(TrialPhase.FAILED)
    if count := len(phases) - failed:
        lines.append(f"{count} search {'trial is' if count == 1 else 'trials are'} finished already")
    if failed:
        lines.append(f"{failed} search {'trial has' if failed == 1 else 'trials have'} failed already")
    return lines


def settings(config: TrainingConfig) -> str:
    """Say what is trained."""
    return (
        f"{config.model_name}, batch {config.batch_size}, lr {config.learning_rate:.4g}, {config.scheduler_type}, "
        f"up to {config.num_epochs} epochs"
    )


def further_settings(config: TrainingConfig) -> list[str]:
    """Say, each by itself, in what else the settings of a search trial are not the default ones."""
    defaults = asdict(TrainingConfig())
    return [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in asdict(config).items()
        if name not in _NOT_DRAWN and value != defaults[name]
    ]


def failure(outcome: TrialOutcome | None) -> str:
    """Say why a trial failed."""
    if outcome is None:
        return "ended from outside, without a reason given"
    text = outcome.error_message or REASONS[outcome.why_ended]
    first = text.strip().splitlines()[0]
    return f"{outcome.error_type}: {first}" if outcome.error_type else first


def _finished_line(preset: TrialRecord) -> str:
    name = preset.experiment_name
    if preset.phase is TrialPhase.FAILED:
        return f"{name} has failed already; `khmer-tuner resume --retry-failed` trains it again"
    return f"{name} is finished already"


def _end(outcome: TrialOutcome) -> str:
    if outcome.why_ended is WhyEnded.MAX_EPOCHS:
        return f"all {outcome.total_epochs} epochs"
    return f"{REASONS[outcome.why_ended]} at {outcome.total_epochs}"
