"""A look at a study with what only this package knows: how long the epochs of running trials took."""

from __future__ import annotations

from pathlib import Path

import optuna

from studies import OutputFolder, StudyStatus, study_status
from tuner.training.history import read_metrics


def look_at_study(study: optuna.Study, folder: OutputFolder) -> StudyStatus:
    """Return how a study stands, also how long an epoch of each running trial takes; it is only read."""
    return study_status(study, folder, _epoch_times)


def _epoch_times(trial_dir: Path) -> list[float]:
    return [metrics.epoch_seconds for metrics in read_metrics(trial_dir)]
