"""What a run says when it is over: experiments, targets, and where everything is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from search_spaces import Targets
from studies import TrialOutcome, TrialPhase, TrialRecord, WhyEnded
from tuner.display import RunSummary
from tuner.screen import plain_table, shown_path

_REASONS = {
    WhyEnded.MAX_EPOCHS: "all epochs",
    WhyEnded.EARLY_STOPPED: "early stopped",
    WhyEnded.PRUNED: "pruned",
    WhyEnded.NONFINITE_LOSS: "loss infinite",
    WhyEnded.OUT_OF_MEMORY: "out of memory",
    WhyEnded.CRASHED: "crashed",
    WhyEnded.FAILED: "error",
}


def print_summary(console: Console, summary: RunSummary) -> None:
    """Print all that a run has to say at its end, readable at 80 columns."""
    console.print()
    console.print(_experiments_table(summary.records))
    targets = _targets_table(summary.records, summary.targets)
    if targets is not None:
        console.print()
        console.print(targets)
    for line in ["", *_best_lines(summary), *failure_lines(summary.records, summary.output_dir), *_places(summary)]:
        console.print(line, soft_wrap=True)


def trial_line(record: TrialRecord) -> str:
    """Say in a line how an experiment ended."""
    outcome = record.outcome
    if record.phase is TrialPhase.FAILED or outcome is None:
        return f"{record.experiment_name} FAILED: {_failure(outcome)}"
    whole = outcome.why_ended is WhyEnded.MAX_EPOCHS
    end = f"all {outcome.total_epochs} epochs" if whole else f"{_REASONS[outcome.why_ended]} at {outcome.total_epochs}"
    return (
        f"{record.experiment_name}: {end}, best char {outcome.best_val_char_accuracy:.4f}, "
        f"seq {outcome.best_val_seq_accuracy:.4f}"
    )


def finished_line(record: TrialRecord) -> str:
    """Say that an experiment is not trained again."""
    if record.phase is TrialPhase.FAILED:
        return f"{record.experiment_name} has failed already; a new name or --output-dir begins it anew"
    return f"{record.experiment_name} is finished already"


def failure_lines(records: Sequence[TrialRecord], output_dir: Path) -> list[str]:
    """Say of each failed experiment why, and where to read more."""
    lines = []
    for record in records:
        if record.phase is TrialPhase.FAILED:
            log = output_dir / record.experiment_name / "logs" / "training.log"
            lines += [f"{record.experiment_name} failed: {_failure(record.outcome)}", f"  log: {shown_path(log)}", ""]
    return lines


def _experiments_table(records: Sequence[TrialRecord]) -> Table:
    table = plain_table(
        "\nexperiment",
        "\nstatus",
        "\nwhy ended",
        "\nepochs",
        "best\nchar",
        "best\nseq",
        "s per\nepoch",
        "con-\nverged",
        right=(3, 4, 5, 6, 7),
    )
    for record in records:
        table.add_row(*_experiment_cells(record))
    return table


def _experiment_cells(record: TrialRecord) -> list[str]:
    outcome = record.outcome
    status = "done" if record.phase is TrialPhase.COMPLETED else "FAILED"
    if outcome is None:
        return [record.experiment_name, status, "ended outside"]
    return [
        record.experiment_name,
        status,
        _REASONS[outcome.why_ended],
        f"{outcome.total_epochs}/{record.training_config.num_epochs}",
        f"{outcome.best_val_char_accuracy:.4f}",
        f"{outcome.best_val_seq_accuracy:.4f}",
        "-" if outcome.epoch_seconds_median is None else f"{outcome.epoch_seconds_median:.1f}",
        "-" if outcome.converged_epoch is None else f"{outcome.converged_epoch}",
    ]


def _targets_table(records: Sequence[TrialRecord], targets: Targets) -> Table | None:
    rules = {
        "char >= {:g}": targets.character_accuracy,
        "seq >= {:g}": targets.sequence_accuracy,
        "s/epoch <= {:g}": targets.training_time_per_epoch,
        "converged <= {:g}": targets.convergence_epochs,
    }
    headers = [text.format(value) for text, value in rules.items() if value is not None]
    if not headers or not records:
        return None
    table = plain_table("targets", *headers)
    for record in records:
        table.add_row(record.experiment_name, *_target_cells(record.outcome, targets))
    return table


def _target_cells(outcome: TrialOutcome | None, targets: Targets) -> list[str]:
    """Return a cell for each target that is set: the figure reached, and whether it is enough."""
    char = outcome.best_val_char_accuracy if outcome else 0.0
    seq = outcome.best_val_seq_accuracy if outcome else 0.0
    seconds = outcome.epoch_seconds_median if outcome else None
    converged = outcome.converged_epoch if outcome else None
    cells = []
    if (least := targets.character_accuracy) is not None:
        cells.append(_verdict(f"{char:.4f}", char >= least))
    if (least := targets.sequence_accuracy) is not None:
        cells.append(_verdict(f"{seq:.4f}", seq >= least))
    if (most := targets.training_time_per_epoch) is not None:
        cells.append("- MISSED" if seconds is None else _verdict(f"{seconds:.1f}", seconds <= most))
    if (most := targets.convergence_epochs) is not None:
        cells.append("never MISSED" if converged is None else _verdict(f"{converged}", converged <= most))
    return cells


def _verdict(figure: str, met: bool) -> str:
    return f"{figure} {'met' if met else 'MISSED'}"


def _best_lines(summary: RunSummary) -> list[str]:
    best = summary.results["best_result"]
    if best is None:
        return ["best: none, no experiment has completed", ""]
    char, seq = best["best_val_char_accuracy"], best["best_val_seq_accuracy"]
    lines = [f"best: {best['experiment_name']}, char {char:.4f}, seq {seq:.4f}"]
    if summary.leader is not None:
        lines.append(f"by {summary.monitor}, which the study goes by, {summary.leader} is better")
    return [*lines, ""]


def _places(summary: RunSummary) -> list[str]:
    folder = shown_path(summary.output_dir)
    lines = [
        f"results      {shown_path(summary.results_path)}",
        f"study        {summary.storage_url or f'{folder}/study.db'}",
    ]
    for position, record in enumerate(summary.records):
        lines.append(f"{'experiments' if position == 0 else '':11}  {folder}/{record.experiment_name}")
    if any(record.training_config.use_tensorboard for record in summary.records):
        lines.append(f"curves       tensorboard --logdir {shlex.quote(folder)}")
    return lines


def _failure(outcome: TrialOutcome | None) -> str:
    if outcome is None:
        return "ended from outside, without a reason given"
    text = outcome.error_message or _REASONS[outcome.why_ended]
    first = text.strip().splitlines()[0]
    return f"{outcome.error_type}: {first}" if outcome.error_type else first
