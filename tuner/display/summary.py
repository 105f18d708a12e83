"""The summary of a run: experiments, targets and output files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from search_spaces import Targets
from search_spaces.diagnostics.names import ANY_SEARCH_TRIAL
from search_spaces.diagnostics.wording import counted
from studies import (
    TrialKind,
    TrialPhase,
    TrialRecord,
    WhyEnded,
    by_accuracy,
    metric_text,
    target_metrics,
    target_verdicts,
)
from tuner.display.events import RunSummary
from tuner.display.lines import failure, study_command
from tuner.display.terminal import plain_table, shown_path

_BEST_SHOWN = 10
_FAILED_SHOWN = 10
_FAR_BELOW = 0.75  # fraction of a target below which an accuracy is far below the target


def print_summary(console: Console, summary: RunSummary) -> None:
    """Print the summary of a run for a terminal of 80 columns."""
    presets = [record for record in summary.records if record.kind is TrialKind.PRESET]
    search = [record for record in summary.records if record.kind is TrialKind.SEARCH]
    best = by_accuracy(search)[:_BEST_SHOWN]
    failed = [record for record in search if record.phase is TrialPhase.FAILED][:_FAILED_SHOWN]
    console.print()
    console.print(_experiments_table([*presets, *best, *failed]))
    if hidden := len(search) - len(best) - len(failed):
        more = counted(hidden, "more search trial")
        command = study_command("status --all", summary.output_dir)
        console.print(f"{more}: `{command}` shows {'it' if hidden == 1 else 'them'}", soft_wrap=True)
    targets = _targets_table([*presets, *best[:1]], summary.targets)
    if targets is not None:
        console.print()
        console.print(targets)
    lines = ["", *_best_lines(summary)]
    for record in presets:
        if record.phase is TrialPhase.FAILED:
            lines += _failure_lines([record], summary.output_dir)
    if failed:
        lines += _failure_lines(failed, summary.output_dir)
    names = [record.experiment_name for record in presets] + ([ANY_SEARCH_TRIAL] if search else [])
    for line in [*lines, *_path_lines(summary, names), *_pending_lines(summary)]:
        console.print(line, soft_wrap=True)


def _failure_lines(failed: Sequence[TrialRecord], output_dir: Path) -> list[str]:
    """Return the reasons why trials failed, and the path of their logs; several trials are always search trials."""
    name = failed[0].experiment_name if len(failed) == 1 else ANY_SEARCH_TRIAL
    log = shown_path(output_dir / name / "logs" / "training.log")
    lines = [f"{record.experiment_name} failed: {failure(record.outcome)}" for record in failed]
    return [*lines, f"  log: {log}", ""]


def _experiments_table(records: Sequence[TrialRecord]) -> Table:
    headers = ("\nexperiment", "\nstatus", "\nwhy ended", "\nepochs")
    figures = ("best\nchar", "best\nseq", "s per\nepoch", "con-\nverged")
    table = plain_table(*headers, *figures, right=(3, 4, 5, 6, 7))
    for record in records:
        table.add_row(*_experiment_cells(record))
    return table


def _experiment_cells(record: TrialRecord) -> list[str]:
    outcome = record.outcome
    status = "completed" if record.phase is TrialPhase.COMPLETED else "FAILED"
    if outcome is None:
        return [record.experiment_name, status, "ended externally"]
    return [
        record.experiment_name,
        "pruned" if outcome.why_ended is WhyEnded.PRUNED else status,
        outcome.why_ended.text,
        f"{outcome.total_epochs}/{record.training_config.num_epochs}",
        f"{outcome.best_val_char_accuracy:.4f}",
        f"{outcome.best_val_seq_accuracy:.4f}",
        "-" if outcome.epoch_seconds_median is None else f"{outcome.epoch_seconds_median:.1f}",
        "-" if outcome.converged_epoch is None else f"{outcome.converged_epoch}",
    ]


def _targets_table(records: Sequence[TrialRecord], targets: Targets) -> Table | None:
    headers = targets.goals().values()
    if not headers or not records:
        return None
    table = plain_table("targets", *headers)
    for record in records:
        figures, verdicts = target_metrics(record.outcome), target_verdicts(record.outcome, targets)
        cells = [f"{metric_text(name, figures[name])} {'met' if met else 'MISSED'}" for name, met in verdicts.items()]
        table.add_row(record.experiment_name, *cells)
    return table


def _best_lines(summary: RunSummary) -> list[str]:
    best = summary.results["best_result"]
    if best is None:
        return ["best: none; no trial has completed", ""]
    char, seq = best["best_val_char_accuracy"], best["best_val_seq_accuracy"]
    unseen = f"; on unseen designs: {summary.unseen}" if summary.unseen else ""
    lines = [f"best: {best['experiment_name']}, char {char:.4f}, seq {seq:.4f}{unseen}"]
    if summary.leader is not None:
        lines.append(f"by the monitored metric {summary.monitor}, {summary.leader} is better")
    return [*lines, *_data_lines(summary), ""]


def _data_lines(summary: RunSummary) -> list[str]:
    """Return a note on the dataset size if the best trial stopped early far below an accuracy target."""
    outcome = next((record.outcome for record in by_accuracy(summary.records)), None)
    if outcome is None or outcome.why_ended is not WhyEnded.EARLY_STOPPED:
        return []
    figures, goals = target_metrics(outcome), dict(summary.targets)
    accuracies = ((figures[name] or 0.0, goals[name] or 0.0) for name in ("character_accuracy", "sequence_accuracy"))
    if all(reached >= _FAR_BELOW * goal for reached, goal in accuracies):
        return []
    few = f"{summary.training_images:,} training images may be too few (`khmer-tuner data` generates more)"
    return [f"the best trial stopped early, far below the targets: {few}"]


def _path_lines(summary: RunSummary, names: Sequence[str]) -> list[str]:
    folder = shown_path(summary.output_dir)
    lines = [
        f"results      {_results_text(summary)}",
        f"study        {summary.storage_url or f'{folder}/study.db'}",
    ]
    for position, name in enumerate(names):
        lines.append(f"{'experiments' if position == 0 else '':11}  {folder}/{name}")
    if any(record.training_config.use_tensorboard for record in summary.records):
        lines.append(f"curves       tensorboard --logdir {shlex.quote(folder)}")
    return lines


def _results_text(summary: RunSummary) -> str:
    if summary.results_path is not None:
        return shown_path(summary.results_path)
    study = f"the study in {shown_path(summary.output_dir)} is already complete"
    why = study if summary.is_complete else "no trial was trained"
    export = f"{study_command('export', summary.output_dir)} --results-file FILE"
    return f"not written, because {why}; `{export}` writes the results"


def _pending_lines(summary: RunSummary) -> list[str]:
    if not summary.pending:
        return []
    pending = counted(summary.pending, "trial is", "trials are")
    return ["", f"{pending} pending; continue with: {study_command('resume', summary.output_dir)}"]
