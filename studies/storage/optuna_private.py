"""Every name of Optuna 5 that is not public and that this package needs, but for those of `PostgresStorage`.

Optuna's public API can neither claim a waiting trial exactly once on SQLite (it reads, then writes) nor go on
with a trial that another process began; it names artifacts by chance, and the dashboard reads all notes of a study to
write one. `test_optuna_private.py` fails if a new Optuna changes any of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import optuna
import sqlalchemy
from optuna.artifacts import ArtifactMeta
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.storages._rdb.models import TrialUserAttributeModel
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, Trial, TrialState

_TRIALS = sqlalchemy.table(
    "trials",
    sqlalchemy.column("trial_id", sqlalchemy.Integer),
    sqlalchemy.column("state", sqlalchemy.Enum(TrialState)),
    sqlalchemy.column("datetime_start", sqlalchemy.DateTime),
)
_USER_ATTRIBUTES, _SYSTEM_ATTRIBUTES = (
    sqlalchemy.table(
        name,
        sqlalchemy.column("study_id", sqlalchemy.Integer),
        sqlalchemy.column("key", sqlalchemy.String),
        sqlalchemy.column("value_json", sqlalchemy.Text),
    )
    for name in ("study_user_attributes", "study_system_attributes")
)
_TRIAL_ATTRIBUTES = sqlalchemy.table(
    "trial_user_attributes",
    sqlalchemy.column("trial_id", sqlalchemy.Integer),
    sqlalchemy.column("key", sqlalchemy.String),
    sqlalchemy.column("value_json", sqlalchemy.Text),
)
ARTIFACT_ATTRIBUTE = "artifacts:"
NOTE_LENGTH = 2045


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


def trial_id_of(study: optuna.Study, number: int) -> int:
    """Return the place in the database of a trial that has been read."""
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def report_again(trial: Trial, value: float, step: int) -> None:
    """Report a value in place of the one that an earlier attempt reported, as `Trial.report` never does."""
    trial.storage.set_trial_intermediate_value(trial._trial_id, step, value)
    trial._cached_frozen_trial.intermediate_values[step] = value  # what a pruner is shown


def set_user_attributes(trial: Trial, attributes: Mapping[str, Any]) -> None:
    """Set attributes of a running trial in one transaction: all of them or none."""
    storage = rdb_storage(trial.study)
    with _create_scoped_session(storage.scoped_session) as session:
        for name, value in attributes.items():
            storage._set_trial_attr_without_commit(session, TrialUserAttributeModel, trial._trial_id, name, value)
    trial._cached_frozen_trial.user_attrs |= attributes


def study_attribute(study: optuna.Study, name: str) -> Any:
    """Return one of a study's own attributes, None if it has none of that name; the others are not read."""
    return _attribute(study, _USER_ATTRIBUTES, name)


def check_trial(trial: FrozenTrial) -> None:
    """Refuse a trial that Optuna would not let into a study.

    Raises:
        ValueError: A value is out of its range, an end has no beginning, and so on.
    """
    trial._validate()


def set_artifact_attribute(trial: Trial, identifier: str, name: str, media_type: str) -> None:
    """Write down that a file belongs to a running trial, as `optuna.artifacts.upload_artifact` does."""
    meta = ArtifactMeta(artifact_id=identifier, filename=name, mimetype=media_type, encoding=None)
    attribute = ARTIFACT_ATTRIBUTE + identifier
    if attribute not in trial._cached_frozen_trial.system_attrs:
        trial.storage.set_trial_system_attr(trial._trial_id, attribute, json.dumps(asdict(meta)))
        trial._cached_frozen_trial.system_attrs[attribute] = json.dumps(asdict(meta))


def set_note(study: optuna.Study, trial: Trial | None, body: str, version: int) -> None:
    """Write the note that the dashboard shows of a trial, or of the study, as `optuna_dashboard.save_note` does.

    Args:
        study: The study.
        trial: Whose note it is; None for the study's.
        body: Markdown, `NOTE_LENGTH` characters at most.
        version: A number that grows with each change, by which pages that are open notice it.
    """
    if len(body) > NOTE_LENGTH:
        raise ValueError(f"a note has {NOTE_LENGTH} characters at most, but got {len(body)}")
    of = "dashboard:" if trial is None else f"dashboard:{trial._trial_id}:"
    # The version last: whoever sees it sees the text.
    for attribute, value in ((f"{of}note_str:0", body), (f"{of}note_ver", version)):
        study._storage.set_study_system_attr(study._study_id, attribute, value)


def study_note(study: optuna.Study) -> tuple[str, int]:
    """Return the study's own note and its version, "" and 0 if it has none; those of its trials are not read."""
    note, version = (_attribute(study, _SYSTEM_ATTRIBUTES, f"dashboard:{name}") for name in ("note_str:0", "note_ver"))
    return note or "", version or 0


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


def _attribute(study: optuna.Study, table: sqlalchemy.TableClause, name: str) -> Any:
    columns = table.c
    statement = sqlalchemy.select(columns.value_json).where(columns.study_id == study._study_id, columns.key == name)
    with rdb_storage(study).engine.connect() as connection:
        text = connection.execute(statement).scalar()
    return None if text is None else json.loads(text)
