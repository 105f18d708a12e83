"""The reader of a study's status, and the lookup of a trial."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search_spaces.diagnostics.diagnostics import suggest
from search_spaces.errors import ConfigurationError
from studies.status.status import RowState, SearchStatus, StatusRow, StudyStatus
from studies.storage.output_folder import OutputFolder
from studies.study.lifecycle import study_invariants, study_targets
from studies.study.search_budget import count_unenqueued, search_budget, search_settings
from studies.study.warm_start import study_prior
from studies.trials.leases import leases_of
from studies.trials.record import (
    TrialKind,
    TrialPhase,
    TrialRecord,
    own_records,
    trials_and_records,
    without_superseded,
)
from studies.trials.results import targets_met

EpochTimes = Callable[[Path], Sequence[float]]

# After this many reads, the last one is returned even if trials still change.
_MAX_READS = 10


def study_status(study: optuna.Study, folder: OutputFolder, epoch_times: EpochTimes | None = None) -> StudyStatus:
    """Read the status of a study, without changing the study or taking a lock.

    Args:
        study: A study from `load_study` or `create_or_join_study`.
        folder: The study's output folder.
        epoch_times: Given a trial's folder, returns the seconds of each finished epoch of the trial. If None, only
            finished trials have `seconds` and `epoch_seconds`.
    """
    maximize = study.direction == StudyDirection.MAXIMIZE
    trials, pids = _read(study, folder)
    latest = without_superseded([record for _, record in trials])
    current = {record.number for record in latest}
    rows = []
    for trial, record in trials:
        row = _row(trial, record, pids.get(trial.number), maximize, superseded=record.number not in current)
        if epoch_times is not None and record.phase is TrialPhase.RUNNING:
            row = _timed(row, record, epoch_times(folder.trial_dir(row.name)))
        rows.append(row)
    targets = study_targets(study)
    return StudyStatus(
        study=study.study_name,
        monitor=study_invariants(study).monitor,
        mode="max" if maximize else "min",
        rows=tuple(rows),
        search=_search_status(study, latest),
        targets=targets,
        met_by=tuple(record.experiment_name for record in latest if targets_met(record.outcome, targets)),
    )


def _search_status(study: optuna.Study, records: list[TrialRecord]) -> SearchStatus | None:
    settings = search_settings(study)
    if settings is None:
        return None
    ended = [record for record in records if record.kind is TrialKind.SEARCH and record.outcome is not None]
    return SearchStatus(
        sampler=settings.sampler.value,
        pruner=settings.pruning.pruner.value,
        parallelism=settings.parallelism,
        budget=search_budget(study),
        ended=len(ended),
        unenqueued=count_unenqueued(study, records),
        prior=study_prior(study).sources,
    )


def _read(
    study: optuna.Study, folder: OutputFolder
) -> tuple[list[tuple[FrozenTrial, TrialRecord]], dict[int, int | None]]:
    """Read the trials, and the worker of each running trial.

    Returns the trials with their records, and the process ids of the workers, keyed by trial number; an id is None if
    the trial has no worker, and 0 if the worker is on another machine.

    If no process holds the lease of a running trial, its worker has exited, or has finished the trial after the trials
    were read. To tell these cases apart, the trials are read again until two reads find the same running trials: then
    the worker has exited. If every lease is held, one read is enough.
    """
    trials = trials_and_records(study)
    leases = leases_of(study, folder)
    pids: dict[int, int | None] = {}
    for _ in range(_MAX_READS):
        running = _running(trials)
        pids = dict(leases.holders(record for _, record in trials if record.number in running))
        if None not in pids.values():
            break
        trials = trials_and_records(study)
        if _running(trials) == running:
            break
    return trials, pids


def _running(trials: Iterable[tuple[FrozenTrial, TrialRecord]]) -> list[int]:
    return [record.number for _, record in trials if record.phase is TrialPhase.RUNNING]


def _row(trial: FrozenTrial, record: TrialRecord, pid: int | None, maximize: bool, *, superseded: bool) -> StatusRow:
    reported = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    best = trial.value if trial.value is not None else (max if maximize else min)(reported, default=None)
    outcome = record.outcome
    return StatusRow(
        number=record.number,
        name=record.experiment_name,
        kind=record.kind,
        state=_state(record, pid),
        best_value=best,
        epochs=len(trial.intermediate_values) if outcome is None else outcome.total_epochs,
        why_ended=None if outcome is None else outcome.why_ended.value,
        started=trial.datetime_start,
        ended=trial.datetime_complete,
        seconds=None if outcome is None else outcome.training_time_s,
        worker_pid=pid,
        attempts=len(record.attempts),
        model_name=record.config.get("model_name"),
        num_epochs=record.config.get("num_epochs"),
        epoch_seconds=None if outcome is None else outcome.epoch_seconds_median,
        superseded=superseded,
        parameters=None if outcome is None else outcome.parameters,
        checkpoint_bytes=None if outcome is None else outcome.checkpoint_bytes,
        latency_ms=None if outcome is None else outcome.latency_ms,
        images_per_s_batch_64=None if outcome is None else outcome.images_per_s_batch_64,
    )


def _timed(row: StatusRow, record: TrialRecord, times: Sequence[float]) -> StatusRow:
    """Add the training time and the median epoch time to the row of a started trial."""
    seconds = sum(times)
    if row.state is RowState.RUNNING and record.attempts:
        attempt = record.attempts[-1]
        running = (datetime.now(UTC) - datetime.fromisoformat(attempt.began)).total_seconds()
        # Negative if the system clock was set back.
        seconds = sum(times[: attempt.epochs]) + max(0.0, running)
    return replace(row, seconds=seconds, epoch_seconds=statistics.median(times) if times else None)


def _state(record: TrialRecord, pid: int | None) -> RowState:
    if record.phase is TrialPhase.RUNNING:
        return RowState.INTERRUPTED if pid is None else RowState.RUNNING
    return RowState.of(record)


def find_trial(study: optuna.Study, folder: OutputFolder, number_or_name: str) -> tuple[TrialRecord, StatusRow]:
    """Find a trial by number or name, and return its record and its status.

    Args:
        study: The study; it is not changed.
        folder: The study's output folder.
        number_or_name: A trial number, or the name of a preset or a search trial. If a preset was retried, its name
            selects the latest trial.

    Raises:
        ConfigurationError: The study has no trial with this number or name.
    """
    records = own_records(study)
    named = [record for record in records if number_or_name in (record.experiment_name, str(record.number))]
    if not named:
        raise ConfigurationError(f"trial: found {number_or_name!r}; {_remedy(number_or_name, records)}")
    # A name takes precedence over a number, because a preset may be named 7.
    record = max(named, key=lambda record: (record.experiment_name == number_or_name, record.number))
    rows = {row.number: row for row in study_status(study, folder).rows}
    return record, rows[record.number]


def _remedy(number_or_name: str, records: Sequence[TrialRecord]) -> str:
    if not records:
        return "the study has no trials yet; start it with `khmer-tuner run` or `khmer-tuner search`"
    if number_or_name.isdigit():
        return (
            f"expected a trial number from 0 to {records[-1].number} or the name of a trial; "
            "list the trials with `khmer-tuner status --all`"
        )
    return suggest(number_or_name, [record.experiment_name for record in records[:20]])
