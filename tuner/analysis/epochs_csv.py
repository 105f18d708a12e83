"""The metrics of all epochs of a study, as a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import optuna

from studies import OutputFolder, TrialPhase, own_records
from tuner.training.history import METRIC_NAMES, read_metrics

EPOCH_COLUMNS = ("number", "experiment_name", "epoch", *METRIC_NAMES)


def epoch_rows(study: optuna.Study, folder: OutputFolder) -> list[dict[str, Any]]:
    """Return a row for each finished epoch in the trials' folders, in order of trial number and epoch.

    Args:
        study: The study; it is not changed.
        folder: The study's output folder.

    Returns:
        Values keyed by column, in the order of `EPOCH_COLUMNS`; `EpochMetrics` documents the metrics.
    """
    # If a preset was enqueued again, its folder has the epochs of its latest trial.
    latest = {record.experiment_name: record for record in own_records(study) if record.phase is not TrialPhase.WAITING}
    return [
        {"number": record.number, "experiment_name": record.experiment_name} | asdict(metrics)
        for record in sorted(latest.values(), key=lambda record: record.number)
        for metrics in read_metrics(folder.trial_dir(record.experiment_name))
    ]
