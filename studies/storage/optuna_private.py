"""Every name of Optuna 5 that is not public and that this package needs, but for those of `PostgresStorage`.

Optuna's public API can neither claim a waiting trial exactly once on SQLite (it reads, then writes) nor resume a trial
that another process started, and it gives artifacts random identifiers. `test_optuna_private.py` fails if a new Optuna
changes any of it.
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
# What Optuna and SQLAlchemy raise for a value in the database that they cannot decode.
DECODING_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)


def damage_text(what: str, error: Exception) -> str:
    """Return the message that stored data is damaged: what, the first reason that the error gives, what to do."""
    reason = str(error).partition("\n")[2].partition("\n    For")[0] or f"{type(error).__name__}: {error}"
    remedy = "restore a backup of the database, or start a new study with another --output-dir"
    return f"{what}: damaged ({' '.join(reason.split())}); {remedy}"


class DecodingStorage(RDBStorage):
    """Optuna's storage; a trial that cannot be decoded is read as a failed one with the error as its kind."""

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
    """Return a running trial as the object that suggests and reports, under its own number.

    `study.get_trials` must have seen the trial before: Optuna's cache refuses to store parameters of others.
    """
    return Trial(study, trial._trial_id)


def claim_waiting(study: optuna.Study, trial: FrozenTrial, key: str, text: str) -> bool:
    """Turn a waiting trial into a running one that carries an attribute, so that only one of many can succeed.

    Args:
        study: The trial's study.
        trial: The trial, as it was read.
        key: The attribute's name; the trial must not have one of that name.
        text: Its value, as JSON.

    Returns:
        Whether it was this call that did it.
    """
    # Optuna keeps naive UTC in the database.
    now = datetime.now(UTC).replace(tzinfo=None)
    begin = (
        sqlalchemy.update(_TRIALS)
        .where(_TRIALS.c.trial_id == trial._trial_id, _TRIALS.c.state == TrialState.WAITING)
        .values(state=TrialState.RUNNING, datetime_start=now)
    )
    with rdb_storage(study).engine.begin() as connection:
        if connection.execute(begin).rowcount != 1:
            return False
        connection.execute(
            sqlalchemy.insert(_TRIAL_ATTRIBUTES).values(trial_id=trial._trial_id, key=key, value_json=text)
        )
    return True


def take_over_running(study: optuna.Study, trial: FrozenTrial, key: str, text: str) -> bool:
    """Change an attribute of a running trial, so that only one of many can succeed.

    Args:
        study: The trial's study.
        trial: The trial, as it was read, with the attribute's old value.
        key: The attribute's name.
        text: Its new value, as JSON.

    Returns:
        Whether the trial is still running and had the old value until now.
    """
    table, old = _TRIAL_ATTRIBUTES.c, json.dumps(trial.user_attrs.get(key))
    change = (
        sqlalchemy.update(_TRIAL_ATTRIBUTES)
        .where(table.trial_id == trial._trial_id, table.key == key, table.value_json == old)
        .values(value_json=text)
    )
    state = sqlalchemy.select(_TRIALS.c.state).where(_TRIALS.c.trial_id == trial._trial_id).with_for_update()
    with rdb_storage(study).engine.connect() as connection:
        # In this order: whoever worked on it until now locks the attribute first, too, and ends the trial after it.
        changed = connection.execute(change).rowcount == 1
        is_running = connection.execute(state).scalar() == TrialState.RUNNING
        if changed and is_running:
            connection.commit()
        return changed and is_running


def database_id(trial: FrozenTrial) -> int:
    """Return the identifier of a trial in its database, which optuna-dashboard uses."""
    return trial._trial_id


def trial_id_of(study: optuna.Study, number: int) -> int:
    """Return the place in the database of a trial that has been read."""
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def report_again(trial: Trial, value: float, step: int) -> None:
    """Report a value in place of the one that an earlier attempt reported, as `Trial.report` never does."""
    trial.storage.set_trial_intermediate_value(trial._trial_id, step, value)
    trial._cached_frozen_trial.intermediate_values[step] = value  # what a pruner is shown


def set_artifact_attribute(trial: Trial, identifier: str, name: str, media_type: str) -> None:
    """Write down that a file belongs to a running trial, as `optuna.artifacts.upload_artifact` does."""
    meta = ArtifactMeta(artifact_id=identifier, filename=name, mimetype=media_type, encoding=None)
    attribute = ARTIFACT_ATTRIBUTE + identifier
    if attribute not in trial._cached_frozen_trial.system_attrs:
        trial.storage.set_trial_system_attr(trial._trial_id, attribute, json.dumps(asdict(meta)))
        trial._cached_frozen_trial.system_attrs[attribute] = json.dumps(asdict(meta))


def quiet_gaussian_process() -> None:
    """Keep from users what the Gaussian process notes on its way: how it could be faster, where a step came to rest."""
    logging.getLogger("optuna._gp").setLevel(logging.ERROR)


def cached_storage(storage: RDBStorage) -> BaseStorage:
    """Return a storage with Optuna's own cache of finished trials in front of it."""
    return _CachedStorage(storage)


def rdb_storage(study: optuna.Study) -> RDBStorage:
    """Return the database storage behind a study's cache.

    Raises:
        TypeError: If the study is kept in memory or in a journal file.
    """
    storage = study._storage
    if not isinstance(storage, _CachedStorage):
        raise TypeError(f"a study of this package is kept in a database, but got {type(storage).__name__}")
    return storage._backend
