"""The content of the results file, with exactly the keys of the API reference, in the same order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from studies.study.presets import preset_order
from studies.trials.record import TrialKind, TrialOutcome, TrialPhase, TrialRecord, WhyEnded, latest_records
from studies.trials.results import best_records, by_accuracy, by_value

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
