"""All uses of private names of Optuna 5, except those in `PostgresStorage`.

Optuna's public API cannot claim a waiting trial exactly once on SQLite (it reads, then writes), nor resume a trial that
another process started, nor choose the identifiers of artifacts. `test_optuna_private.py` fails if a new version of
Optuna changes one of these names.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from typing import cast

import optuna
import sqlalchemy
from optuna.artifacts import ArtifactMeta
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

_TRIALS = sqlalchemy.table(
    "trials",
    sqlalchemy.column("trial_id", sqlalchemy.Integer),
    sqlalchemy.column("state", sqlalchemy.Enum(TrialState)),
    sqlalchemy.column("datetime_start", sqlalchemy.DateTime),
)
_TRIAL_ATTRIBUTES = sqlalchemy.table(
    "trial_user_attributes",
    sqlalchemy.column("trial_id", sqlalchemy.Integer),
    sqlalchemy.column("key", sqlalchemy.String),
    sqlalchemy.column("value_json", sqlalchemy.Text),
)
ARTIFACT_ATTRIBUTE = "artifacts:"
# Raised by Optuna and SQLAlchemy for a value in the database that they cannot decode.
DECODING_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)


def damage_text(what: str, error: Exception) -> str:
    """Return the message that stored data is damaged, with the first reason of the error and the remedy."""
    reason = str(error).partition("\n")[2].partition("\n    For")[0] or f"{type(error).__name__}: {error}"
    remedy = "restore a backup of the database, or start a new study with another --output-dir"
    return f"{what}: damaged ({' '.join(reason.split())}); {remedy}"


class DecodingStorage(RDBStorage):
    """Optuna's storage, which reads a trial that cannot be decoded as a failed trial whose kind is the error."""

    def _build_frozen_trial_from_trial_model(self, trial: TrialModel) -> FrozenTrial:
        try:
            read = super()._build_frozen_trial_from_trial_model(trial)
            names, reports = (*read.user_attrs, *read.system_attrs, *read.params), read.intermediate_values
            expected = {str: names, int: reports, float: (*(read.values or ()), *reports.values())}
            if any(not isinstance(value, kind) for kind, values in expected.items() for value in values):
                raise TypeError("a name is not text, an epoch not a whole number, or a value not a number")
            return read
        except DECODING_ERRORS as error:
            damaged = create_trial(state=TrialState.FAIL, user_attrs={"kind": f"{type(error).__name__}: {error}"})
            damaged.number, damaged._trial_id = cast(int, trial.number), cast(int, trial.trial_id)
            return damaged


def continue_trial(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """Return the `Trial` of a running trial, to suggest and report under its number.

    Call `study.get_trials` before: Optuna's cache stores parameters only of trials that it has read.
    """
    return Trial(study, trial._trial_id)


def claim_waiting(study: optuna.Study, trial: FrozenTrial, key: str, text: str) -> bool:
    """Set a waiting trial to running and add a user attribute to it, atomically: only one process can succeed.

    Args:
        study: The trial's study.
        trial: The trial as read from the study.
        key: Name of the attribute, which the trial must not have yet.
        text: Value of the attribute, as JSON.

    Returns:
        Whether this call claimed the trial.
    """
    # Optuna stores naive UTC times.
    now = datetime.now(UTC).replace(tzinfo=None)
    start = (
        sqlalchemy.update(_TRIALS)
        .where(_TRIALS.c.trial_id == trial._trial_id, _TRIALS.c.state == TrialState.WAITING)
        .values(state=TrialState.RUNNING, datetime_start=now)
    )
    with rdb_storage(study).engine.begin() as connection:
        if connection.execute(start).rowcount != 1:
            return False
        connection.execute(
            sqlalchemy.insert(_TRIAL_ATTRIBUTES).values(trial_id=trial._trial_id, key=key, value_json=text)
        )
    return True


def take_over_running(study: optuna.Study, trial: FrozenTrial, key: str, text: str) -> bool:
    """Replace a user attribute of a running trial if it is unchanged, atomically: only one process can succeed.

    Args:
        study: The trial's study.
        trial: The trial as read from the study, with the old value.
        key: Name of the attribute.
        text: New value of the attribute, as JSON.

    Returns:
        Whether this call took over the trial: it was still running, with the old value.
    """
    table, old = _TRIAL_ATTRIBUTES.c, json.dumps(trial.user_attrs.get(key))
    change = (
        sqlalchemy.update(_TRIAL_ATTRIBUTES)
        .where(table.trial_id == trial._trial_id, table.key == key, table.value_json == old)
        .values(value_json=text)
    )
    state = sqlalchemy.select(_TRIALS.c.state).where(_TRIALS.c.trial_id == trial._trial_id).with_for_update()
    with rdb_storage(study).engine.connect() as connection:
        # The previous worker locks in the same order, the attribute before the trial, so there is no deadlock.
        changed = connection.execute(change).rowcount == 1
        is_running = connection.execute(state).scalar() == TrialState.RUNNING
        if changed and is_running:
            connection.commit()
        return changed and is_running


def database_id(trial: FrozenTrial) -> int:
    """Return the id of a trial in its database, as used by optuna-dashboard."""
    return trial._trial_id


def trial_id_of(study: optuna.Study, number: int) -> int:
    """Return the id in the database of a trial that has been read."""
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def report_again(trial: Trial, value: float, step: int) -> None:
    """Report a value that replaces the one of an earlier attempt; `Trial.report` would ignore it."""
    trial.storage.set_trial_intermediate_value(trial._trial_id, step, value)
    trial._cached_frozen_trial.intermediate_values[step] = value  # read by pruners


def set_artifact_attribute(trial: Trial, identifier: str, name: str, media_type: str) -> None:
    """Record an artifact of a running trial, as `optuna.artifacts.upload_artifact` does."""
    meta = ArtifactMeta(artifact_id=identifier, filename=name, mimetype=media_type, encoding=None)
    attribute = ARTIFACT_ATTRIBUTE + identifier
    if attribute not in trial._cached_frozen_trial.system_attrs:
        trial.storage.set_trial_system_attr(trial._trial_id, attribute, json.dumps(asdict(meta)))
        trial._cached_frozen_trial.system_attrs[attribute] = json.dumps(asdict(meta))


def quiet_gaussian_process() -> None:
    """Hide the Gaussian process's warnings, for example about its speed and its convergence."""
    logging.getLogger("optuna._gp").setLevel(logging.ERROR)


def cached_storage(storage: RDBStorage) -> BaseStorage:
    """Return the storage wrapped in Optuna's cache of finished trials."""
    return _CachedStorage(storage)


def rdb_storage(study: optuna.Study) -> RDBStorage:
    """Return the database storage behind a study's cache.

    Raises:
        TypeError: If the study is stored in memory or in a journal file.
    """
    storage = study._storage
    if not isinstance(storage, _CachedStorage):
        raise TypeError(f"expected a study in a database, but got the storage {type(storage).__name__}")
    return storage._backend
