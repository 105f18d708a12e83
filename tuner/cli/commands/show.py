"""Show one trial: settings, learning curve, attempts and log.

Examples:
  khmer-tuner show 0
  khmer-tuner show baseline_optimized
  khmer-tuner show baseline_optimized --output-dir training_output --json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.cli.errors import SUCCESS
from tuner.cli.existing_study import LoadedStudy, load
from tuner.cli.options import Command, add_study_options, non_empty
from tuner.cli.output import print_json, print_lines

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from search_spaces import TrainingConfig
    from studies import Attempt, StatusRow, TrialRecord
    from tuner.training.history import EpochMetrics

_LOG_LINES = 10
_MOST_EPOCH_LINES = 40
_BAR_CELLS = 20
_STARTED_AFTER = {
    "waiting": "enqueued",
    "stop": "previous attempt was stopped",
    "crash": "previous attempt was killed",
}


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trial", metavar="TRIAL", type=non_empty, help="trial number or name")
    add_study_options(parser, json=True)


@dataclass(frozen=True)
class _Trial:
    record: TrialRecord
    row: StatusRow
    trial_dir: Path
    epochs: Sequence[EpochMetrics]
    log: Sequence[str]


def run(options: argparse.Namespace, loaded: LoadedStudy) -> int:
    """Print a trial's settings, epochs, attempts and last log lines; the study is only read."""
    from studies import find_trial, study_space
    from tuner.training.history import read_metrics

    study, folder = loaded
    record, row = find_trial(study, folder, options.trial)
    trial_dir = folder.trial_dir(record.experiment_name)
    trial = _Trial(record, row, trial_dir, read_metrics(trial_dir), _log_tail(trial_dir))
    if options.json:
        print_json(_as_dict(trial))
    else:
        varied = [parameter.name for parameter in study_space(study).active(record.training_config)]
        print_lines(_lines(trial, _settings(record, varied)))
    return SUCCESS


def _log_tail(trial_dir: Path) -> list[str]:
    from search_spaces.files.regular_files import read_bytes

    path = trial_dir / "logs" / "training.log"
    return read_bytes(path).decode("utf-8", "replace").splitlines()[-_LOG_LINES:] if path.exists() else []


def _as_dict(trial: _Trial) -> dict[str, Any]:
    record, row = trial.record, trial.row
    return {
        "number": record.number,
        "name": record.experiment_name,
        "kind": record.kind.value,
        "state": row.state.value,
        "worker_pid": row.worker_pid,
        "best_value": row.best_value,
        "outcome": None if record.outcome is None else asdict(record.outcome),
        "config": dict(record.config),
        "attempts": [asdict(attempt) for attempt in record.attempts],
        "epochs": [asdict(epoch) for epoch in trial.epochs],
        "log": list(trial.log),
        "folder": str(trial.trial_dir),
    }


def _lines(trial: _Trial, settings: Sequence[str]) -> Iterator[RenderableType]:
    from search_spaces.diagnostics.wording import counted
    from tuner.display.terminal import shown_path

    record, outcome = trial.record, trial.record.outcome
    yield _headline(record, trial.row)
    if outcome is not None and outcome.micro_batch_size is not None:
        size = counted(outcome.micro_batch_size, "image")
        yield f"micro-batch: {size}, because memory ran out with whole batches"
    if outcome is not None and outcome.size_and_speed_text:
        yield f"size and speed: {outcome.size_and_speed_text}"
    if outcome is not None and outcome.unseen_text:
        yield f"on unseen designs: {outcome.unseen_text}"
    if outcome is not None and outcome.error_message:
        yield f"error: {outcome.error_type} {outcome.error_message}".strip()
    yield from ("", "settings" if record.config else "settings: not sampled yet", *_indented(settings))
    if outcome is not None and len(trial.epochs) < outcome.total_epochs:
        yield f"incomplete: {trial.trial_dir}/metrics.jsonl has {len(trial.epochs)} of {outcome.total_epochs} epochs"
    if trial.epochs:
        yield from ("", "epochs, with validation metrics", _curve(trial.epochs, record.training_config))
    if record.attempts:
        yield from ("", "attempts", _attempts(record.attempts))
    if trial.log:
        yield from ("", "last lines of the training log", *_indented(trial.log))
    yield from ("", f"folder: {shown_path(trial.trial_dir)}")


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _headline(record: TrialRecord, row: StatusRow) -> str:
    parts = [f"trial {record.number}, {record.experiment_name}: {row.state.value}"]
    if row.why_ended not in (None, row.state.value):
        parts.append(row.reason)
    if record.config:
        parts.append(f"{row.epochs} of {record.training_config.num_epochs} epochs")
    if row.best_value is not None:
        parts.append(f"best {record.training_config.early_stopping_monitor} {row.best_value:.4f}")
    if row.worker_pid:
        parts.append(f"process {row.worker_pid}")
    return ", ".join(parts)


def _settings(record: TrialRecord, varied: Sequence[str]) -> list[str]:
    """Format a line per setting that the search space varies or that differs from its default."""
    from search_spaces import TrainingConfig
    from search_spaces.training_config import WITHOUT_EFFECT

    if not record.config:
        return []
    config, default = record.training_config, TrainingConfig()
    names = [item.name for item in fields(config) if item.name not in WITHOUT_EFFECT]
    shown = [name for name in names if name in varied or getattr(config, name) != getattr(default, name)]
    return [f"{name:{max(map(len, shown))}}  {getattr(config, name)}" for name in shown]


def _curve(epochs: Sequence[EpochMetrics], config: TrainingConfig) -> Table:
    """Return a table with a row per epoch, at most 40, and a bar for the monitored metric."""
    from tuner.display.terminal import plain_table

    monitor = config.early_stopping_monitor
    table = plain_table("", "epoch", "char", "seq", "loss", "train loss", "lr", "s", monitor, right=tuple(range(1, 8)))
    values = [epoch.value(monitor) for epoch in epochs]
    low, high = min(values), max(values)
    best = (max if config.early_stopping_mode == "max" else min)(epochs, key=lambda epoch: epoch.value(monitor))
    for epoch in _thinned(epochs):
        filled_cells = round((epoch.value(monitor) - low) / (high - low or 1) * _BAR_CELLS)
        table.add_row(
            "*" if epoch is best else "",
            str(epoch.epoch),
            f"{epoch.val_char_accuracy:.4f}",
            f"{epoch.val_seq_accuracy:.4f}",
            f"{epoch.val_loss:.4f}",
            f"{epoch.train_loss:.4f}",
            f"{epoch.learning_rate:.1e}",
            f"{epoch.epoch_seconds:.1f}",
            "#" * filled_cells,
        )
    return table


def _thinned(epochs: Sequence[EpochMetrics]) -> Iterator[EpochMetrics]:
    step = -(-len(epochs) // _MOST_EPOCH_LINES)
    yield from (epoch for epoch in epochs if (epochs[-1].epoch - epoch.epoch) % step == 0)


def _attempts(attempts: Sequence[Attempt]) -> Table:
    from tuner.display.terminal import plain_table

    table = plain_table("", "started", "host:process", "after epoch", "start reason", right=(3,))
    for attempt in attempts:
        started = datetime.fromisoformat(attempt.began).astimezone()
        table.add_row(
            "", f"{started:%Y-%m-%d %H:%M:%S}", attempt.worker, str(attempt.epochs), _STARTED_AFTER[attempt.after]
        )
    return table


COMMAND = Command(__name__, __doc__, _add_options, load, run)
