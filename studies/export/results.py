"""The results of a study as JSON and as tables for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.experiments.schema import Targets
from search_spaces.training_config import TrainingConfig
from studies.status.reader import study_status
from studies.status.status import StatusRow, utc_text
from studies.storage.output_folder import OutputFolder
from studies.study.presets import preset_order
from studies.trials.record import (
    TrialKind,
    TrialOutcome,
    TrialPhase,
    TrialRecord,
    WhyEnded,
    latest_records,
    trials_and_records,
)
from studies.trials.results import best_records, by_accuracy, by_value, target_verdicts

HYPERPARAMETERS = (
    "model_name",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "loss_type",
    "scheduler_type",
    "optimizer_type",
)
KEPT_SEARCH_TRIALS = 10


def default_results_name(timestamp: str) -> str:
    """Return the default name of a results file, which the loader of the API reference expects."""
    return f"hyperparameter_tuning_results_{timestamp}.json"


def render_results(
    study: optuna.Study, *, timestamp: str, matches: Callable[[TrialRecord], bool] = lambda record: True
) -> dict[str, Any]:
    """Return a study's results in the format of the API reference; the study may be running.

    The results contain only finished trials, and only the latest trial of a retried preset. Pruned trials count as
    completed. No number is NaN or infinite.

    Args:
        study: The study; it is not changed.
        timestamp: Local time as ``YYYYMMDD_HHMMSS``.
        matches: Returns whether the results contain a trial; the default selects all trials.

    Returns:
        Plain data for JSON.
    """
    records = list(filter(matches, ended_records(study)))
    best = [_result(record, with_error=False) for record in best_records(records)[:1]]
    return {
        "timestamp": timestamp,
        "experiments_completed": sum(record.phase is TrialPhase.COMPLETED for record in records),
        "best_result": best[0] if best else None,
        "all_results": [_result(record, with_error=True) for record in records],
    }


def ended_records(study: optuna.Study) -> list[TrialRecord]:
    """Return the finished trials: presets in the order of their file, then search trials in order of number."""
    order = {name: position for position, name in enumerate(preset_order(study))}
    records = [record for record in latest_records(study) if record.phase in (TrialPhase.COMPLETED, TrialPhase.FAILED)]
    presets = [record for record in records if record.kind is TrialKind.PRESET]
    presets.sort(key=lambda preset: order.get(preset.experiment_name, len(order)))
    return [*presets, *(record for record in records if record.kind is TrialKind.SEARCH)]


def records_beyond_retention(study: optuna.Study, keep: int = KEPT_SEARCH_TRIALS) -> list[TrialRecord]:
    """Return the finished search trials whose checkpoints can be removed.

    These trials keep their checkpoints: the `keep` trials with the best accuracy, pruned ones included; the best trial
    by accuracy that was not pruned; and the best trial by the monitored metric that was not pruned.
    """
    searches = [record for record in ended_records(study) if record.kind is TrialKind.SEARCH]
    trials = study.get_trials(deepcopy=False)
    complete = [trials[record.number] for record in searches if trials[record.number].state == TrialState.COMPLETE]
    leaders = by_value(complete, lambda trial: trial.value, maximize=study.direction == StudyDirection.MAXIMIZE)
    kept = {record.number for record in (*by_accuracy(searches)[:keep], *best_records(searches)[:1])}
    kept |= {trial.number for trial in leaders[:1]}
    return [record for record in searches if record.number not in kept]


def _result(record: TrialRecord, *, with_error: bool) -> dict[str, Any]:
    outcome = record.outcome or _UNKNOWN
    failed = record.phase is TrialPhase.FAILED
    result: dict[str, Any] = {
        "experiment_name": record.experiment_name,
        "status": "failed" if failed else "completed",
        "training_time": _number(outcome.training_time_s) or 0.0,
        "best_val_char_accuracy": _number(outcome.best_val_char_accuracy) or 0.0,
        "best_val_seq_accuracy": _number(outcome.best_val_seq_accuracy) or 0.0,
        "final_train_loss": _number(outcome.final_train_loss),
        "total_epochs": outcome.total_epochs,
    }
    if with_error:
        error = outcome.error_message or outcome.error_type or outcome.why_ended.value
        result["error_message"] = error if failed else ""
    config = record.training_config
    return result | {"hyperparameters": {name: getattr(config, name) for name in HYPERPARAMETERS}}


_UNKNOWN = TrialOutcome(
    why_ended=WhyEnded.FAILED,
    training_time_s=0.0,
    best_val_char_accuracy=0.0,
    best_val_seq_accuracy=0.0,
    final_train_loss=None,
    total_epochs=0,
    best_epoch=None,
    error_message="ended externally, no reason recorded",
)


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


# A spreadsheet reads a cell that starts with one of these characters as a formula.
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n")

_IDENTITY = ("number", "experiment_name", "kind", "state", "why_ended")
# Without the name, which is in the column of the same name in `_IDENTITY`.
_SETTINGS = tuple(item.name for item in fields(TrainingConfig) if item.name != "experiment_name")
_ERRORS = ("error_type", "error_message")
_RESULTS = tuple(item.name for item in fields(TrialOutcome) if item.name not in ("why_ended", *_ERRORS))
_TARGETS = tuple(f"target_{name}" for name in Targets.model_fields)
_WORK = ("attempts", "started", "ended", "worker")
TRIAL_COLUMNS = (*_IDENTITY, *_SETTINGS, "monitor", "monitored_value", *_RESULTS, *_TARGETS, *_WORK, *_ERRORS)


def trial_rows(study: optuna.Study, folder: OutputFolder) -> list[dict[str, Any]]:
    """Return one row per trial, in order of trial number; trials of all states have a row.

    Args:
        study: The study; it is not changed.
        folder: The study's output folder.

    Returns:
        The rows, keyed by the names in `TRIAL_COLUMNS`. Values that are unknown or do not apply are None or missing.
    """
    status = study_status(study, folder)
    trials = {trial.number: (trial, record) for trial, record in trials_and_records(study)}
    return [{"monitor": status.monitor} | _row(row, *trials[row.number], status.targets) for row in status.rows]


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Format a table as CSV (RFC 4180) with a header.

    Text that a spreadsheet would read as a formula gets a leading apostrophe. Unpaired surrogates are escaped. Lists
    and mappings are written as JSON.

    Args:
        columns: The names of the columns, in order.
        rows: The rows, keyed by column name; a missing value or None becomes an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _row(row: StatusRow, trial: FrozenTrial, record: TrialRecord, targets: Targets) -> dict[str, Any]:
    # The record was read after the status: a trial may have finished in between, and is then shown as unfinished.
    outcome = record.outcome if row.why_ended is not None else None
    config = {name: value for name, value in record.config.items() if name in _SETTINGS}
    results = {} if outcome is None else asdict(outcome)
    verdicts = {} if outcome is None else target_verdicts(outcome, targets)
    return {
        "total_epochs": row.epochs,
        **config,
        **results,
        **{f"target_{name}": "met" if met else "missed" for name, met in verdicts.items()},
        "number": row.number,
        "experiment_name": row.name,
        "kind": record.kind.value,
        "state": row.state.value,
        "why_ended": row.why_ended,
        "monitored_value": row.best_value,
        "attempts": row.attempts,
        "started": utc_text(trial.datetime_start),
        "ended": None if outcome is None else utc_text(trial.datetime_complete),
        "worker": record.attempts[-1].worker if record.attempts else None,
    }


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return f"'{text}" if text.startswith(_FORMULA_SIGNS) else text
