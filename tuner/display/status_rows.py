"""Trials of a study as a run knows them before the study itself was looked at."""

from __future__ import annotations

import math
import re
from datetime import datetime

from search_spaces import TrainingConfig
from studies import RowState, StatusRow, TrialKind, TrialPhase, TrialRecord

_NOT_KNOWN_YET = -1


def is_search(name: str) -> bool:
    """Return whether a trial of this name is one of the open search."""
    return re.fullmatch(r"search_[0-9]{4,}", name) is not None


def planned_row(name: str, config: TrainingConfig | None) -> StatusRow:
    """Return a trial that is still to be begun; its settings may not be drawn yet."""
    return StatusRow(
        number=_NOT_KNOWN_YET,
        name=name,
        kind=TrialKind.SEARCH if is_search(name) else TrialKind.PRESET,
        state=RowState.WAITING,
        model_name=None if config is None else config.model_name,
        num_epochs=None if config is None else config.num_epochs,
    )


def ended_row(record: TrialRecord, best: float | None) -> StatusRow:
    """Return a trial that has just ended with this best value of the metric."""
    outcome = record.outcome
    config = record.training_config
    return StatusRow(
        number=record.number,
        name=record.experiment_name,
        kind=record.kind,
        state=RowState.COMPLETED if record.phase is TrialPhase.COMPLETED else RowState.FAILED,
        best_value=best,
        epochs=outcome.total_epochs if outcome else 0,
        why_ended=outcome.why_ended.value if outcome else None,
        ended=datetime.now(),
        seconds=outcome.training_time_s if outcome else None,
        attempts=len(record.attempts),
        model_name=config.model_name,
        num_epochs=config.num_epochs,
        epoch_seconds=outcome.epoch_seconds_median if outcome else None,
    )


def finite(value: float | None) -> float | None:
    """Return a value that is a number, None for any other."""
    return value if value is not None and math.isfinite(value) else None
