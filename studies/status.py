"""How a study stands: a row per trial and what is still owed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.schema import Targets
from studies.file_locks import holder_pid
from studies.folder import OutputFolder
from studies.search import search_budget, search_settings, unenqueued_trials
from studies.study import study_targets
from studies.targets import targets_met
from studies.trial_record import TrialKind, TrialPhase, TrialRecord, latest_records, own_trials, read_record

# A study whose trials change faster than they can be read twice is shown as last seen.
_MOST_LOOKS = 10


class RowState(StrEnum):
    """How far a trial is, as a user sees it."""

    WAITING = "waiting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True)
class StatusRow:
    """One trial.

    Attributes:
        number: Its number in the study.
        name: The experiment's or search trial's name.
        state: Interrupted is a running one whose worker died; it is taken up again.
        best_value: The best value of the monitored metric so far; None before the first epoch.
        epochs: Epochs finished.
        why_ended: The reason; None while it has not ended.
        started: When it was first begun, local time; None while it waits.
        seconds: Of training if it ended, since its start if not; None while it waits.
        worker_pid: Process that works on it; None if none does, 0 if it is on another machine.
        attempts: How often it was begun.
    """

    number: int
    name: str
    state: RowState
    best_value: float | None
    epochs: int
    why_ended: str | None
    started: datetime | None
    seconds: float | None
    worker_pid: int | None
    attempts: int


@dataclass(frozen=True)
class SearchStatus:
    """How far the open search of a study is.

    Attributes:
        sampler: Which sampler draws.
        pruner: Which rule ends hopeless trials.
        budget: Search trials that the study is to have.
        ended: Those of them that have ended.
        unenqueued: Those of them that are no trials of the study yet.
    """

    sampler: str
    pruner: str
    budget: int
    ended: int
    unenqueued: int


@dataclass(frozen=True)
class StudyStatus:
    """A study at one moment.

    Attributes:
        study: Its name.
        monitor: The metric of `best_value`; None if the study does not say.
        mode: ``max`` or ``min``.
        rows: The trials by number.
        best: The completed row of the best value; None if there is none.
        search: How far its open search is; None if it has none.
        targets: What its experiments should reach.
        met_by: Names of the trials that met all of that.
    """

    study: str
    monitor: str | None
    mode: str
    rows: tuple[StatusRow, ...]
    best: StatusRow | None
    search: SearchStatus | None
    targets: Targets
    met_by: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Trials per state; every state is there."""
        counted = Counter(row.state for row in self.rows)
        return {state.value: counted[state] for state in RowState}

    @property
    def owed(self) -> int:
        """Trials that a `resume` would work on now: waiting and interrupted ones, and those not enqueued yet."""
        unenqueued = 0 if self.search is None else self.search.unenqueued
        return self.counts[RowState.WAITING] + self.counts[RowState.INTERRUPTED] + unenqueued

    def as_dict(self) -> dict[str, Any]:
        """Return the status as plain data for JSON; times in ISO 8601."""
        return {
            "study": self.study,
            "monitor": self.monitor,
            "mode": self.mode,
            "counts": self.counts,
            "owed": self.owed,
            "best": None if self.best is None else _plain(self.best),
            "search": None if self.search is None else asdict(self.search),
            "targets": self.targets.model_dump(mode="json", exclude_none=True),
            "targets_met_by": list(self.met_by),
            "trials": [_plain(row) for row in self.rows],
        }


def study_status(study: optuna.Study, folder: OutputFolder) -> StudyStatus:
    """Return how a study stands; it is only read, and no lock is taken.

    Args:
        study: From `load_study` or `create_or_join_study`.
        folder: Its folder.
    """
    maximize = study.direction == StudyDirection.MAXIMIZE
    trials, pids = _look(study, folder)
    rows = tuple(_row(trial, pids.get(trial.number), maximize) for trial in trials)
    ended = [row for row, trial in zip(rows, trials, strict=True) if trial.state == TrialState.COMPLETE]
    pick = max if maximize else min
    # Of equals, max and min return the first, which is the lower number.
    best = pick((row for row in ended if row.best_value is not None), key=_value, default=None)
    metric, targets, records = study.metric_names, study_targets(study), latest_records(study)
    return StudyStatus(
        study=study.study_name,
        monitor=metric[0] if metric else None,
        mode="max" if maximize else "min",
        rows=rows,
        best=best,
        search=_search_status(study, records),
        targets=targets,
        met_by=tuple(record.experiment_name for record in records if targets_met(record.outcome, targets)),
    )


def _search_status(study: optuna.Study, records: list[TrialRecord]) -> SearchStatus | None:
    settings = search_settings(study)
    if settings is None:
        return None
    ended = [record for record in records if record.kind is TrialKind.SEARCH and record.outcome is not None]
    return SearchStatus(
        sampler=settings.sampler.value,
        pruner=settings.pruning.pruner.value,
        budget=search_budget(study),
        ended=len(ended),
        unenqueued=unenqueued_trials(study, records),
    )


def _look(study: optuna.Study, folder: OutputFolder) -> tuple[list[FrozenTrial], dict[int, int | None]]:
    """Return the trials and who works on the running ones, both of one moment.

    A lease found free may be that of a trial that ended just after the trials were read; only if they are the
    same afterwards was its worker really dead.
    """
    trials = own_trials(study)
    for _ in range(_MOST_LOOKS):
        running = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
        pids = {number: holder_pid(folder.lease_path(number)) for number in running}
        trials = own_trials(study)
        if [trial.number for trial in trials if trial.state == TrialState.RUNNING] == running:
            break
    return trials, pids


def _row(trial: FrozenTrial, pid: int | None, maximize: bool) -> StatusRow:
    record = read_record(trial)
    reported = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    best = trial.value if trial.value is not None else (max if maximize else min)(reported, default=None)
    outcome = record.outcome
    return StatusRow(
        number=record.number,
        name=record.experiment_name,
        state=_state(record, pid),
        best_value=best,
        epochs=len(trial.intermediate_values) if outcome is None else outcome.total_epochs,
        why_ended=None if outcome is None else outcome.why_ended.value,
        started=trial.datetime_start,
        seconds=_seconds(trial, record),
        worker_pid=pid,
        attempts=len(record.attempts),
    )


def _state(record: TrialRecord, pid: int | None) -> RowState:
    if record.phase is TrialPhase.RUNNING:
        return RowState.INTERRUPTED if pid is None else RowState.RUNNING
    return RowState(record.phase.value)


def _seconds(trial: FrozenTrial, record: TrialRecord) -> float | None:
    if record.outcome is not None:
        return record.outcome.training_time_s
    if trial.datetime_start is None:
        return None
    return ((trial.datetime_complete or datetime.now()) - trial.datetime_start).total_seconds()


def _value(row: StatusRow) -> float:
    return 0.0 if row.best_value is None else row.best_value


def _plain(row: StatusRow) -> dict[str, Any]:
    return asdict(row) | {
        "state": row.state.value,
        "started": None if row.started is None else row.started.isoformat(timespec="seconds"),
    }
