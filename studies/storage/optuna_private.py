"""All uses of private Optuna 5 names, except those in `PostgresStorage`.

Optuna's public API cannot claim a waiting trial exactly once on SQLite (Optuna reads the state, then writes it), nor
resume a trial that another process started, nor choose artifact ids, nor set the width of TPE's kernels.
`test_optuna_private.py` fails if a new version of Optuna changes one of these names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.artifacts import ArtifactMeta
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.storages._rdb.models import TrialModel
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search_spaces.errors import ConfigurationError

_TRIALS = sqlalchemy.table(
    "trials",
    sqlalchemy.column("trial_id", sqlalchemy.Integer),
    sqlalchemy.column("state", sqlalchemy.Enum(TrialState)),
    sqlalchemy.column("datetime_start", sqlalchemy.DateTime),
)
_STUDIES = sqlalchemy.table("studies", sqlalchemy.column("study_id"), sqlalchemy.column("study_name"))
_TRIAL_ATTRIBUTES = sqlalchemy.table(
    "trial_user_attributes",
    sqlalchemy.column("trial_id", sqlalchemy.Integer),
    sqlalchemy.column("key", sqlalchemy.String),
    sqlalchemy.column("value_json", sqlalchemy.Text),
)
ARTIFACT_ATTRIBUTE = "artifacts:"
# Raised by Optuna and SQLAlchemy for a value in the database that they cannot decode.
DECODING_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)


_REMEDY = "restore a backup of the database, or start a new study with another --output-dir"


def damage_text(what: str, error: Exception, remedy: str = _REMEDY) -> str:
    """Format a message that the stored item `what` is damaged, with the reason and a remedy.

    If Pydantic raised the error, the reason is the first of the listed problems.
    """
    reason = str(error).partition("\n")[2].partition("\n    For")[0] or f"{type(error).__name__}: {error}"
    return f"{what}: damaged ({' '.join(reason.split())}); {remedy}"


class DecodingStorage(RDBStorage):
    """Optuna's database storage, except that the error about a trial that cannot be decoded names the trial."""

    def _build_frozen_trial_from_trial_model(self, trial: TrialModel) -> FrozenTrial:
        try:
            return super()._build_frozen_trial_from_trial_model(trial)
        except DECODING_ERRORS as error:
            raise ConfigurationError(damage_text(f"trial {trial.number}", error)) from error


def continue_trial(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """Return a `Trial` that suggests parameters and reports values for an existing running trial.

    Call `study.get_trials` first, because Optuna's cache stores parameters only for trials that it has read.
    """
    return Trial(study, trial._trial_id)


def claim_waiting(study: optuna.Study, trial: FrozenTrial, key: str, text: str) -> bool:
    """Atomically set a waiting trial to running and add a user attribute to it.

    If several processes call this at the same time, only one call succeeds.

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
    """Atomically replace a user attribute of a running trial, if the attribute is unchanged.

    If several processes call this at the same time, only one call succeeds.

    Args:
        study: The trial's study.
        trial: The trial as read from the study, with the old value of the attribute.
        key: Name of the attribute.
        text: New value of the attribute, as JSON.

    Returns:
        Whether this call replaced the attribute; False if the attribute has changed or the trial has finished.
    """
    table, old = _TRIAL_ATTRIBUTES.c, json.dumps(trial.user_attrs.get(key))
    change = (
        sqlalchemy.update(_TRIAL_ATTRIBUTES)
        .where(table.trial_id == trial._trial_id, table.key == key, table.value_json == old)
        .values(value_json=text)
    )
    state = sqlalchemy.select(_TRIALS.c.state).where(_TRIALS.c.trial_id == trial._trial_id).with_for_update()
    with rdb_storage(study).engine.connect() as connection:
        # The previous worker also locks the attribute's row before the trial's row, so there is no deadlock.
        changed = connection.execute(change).rowcount == 1
        is_running = connection.execute(state).scalar() == TrialState.RUNNING
        if changed and is_running:
            connection.commit()
        return changed and is_running


def database_id(trial: FrozenTrial) -> int:
    """Return a trial's id in the database, which optuna-dashboard uses."""
    return trial._trial_id


def study_attribute(study: optuna.Study, key: str) -> Any:
    """Return a system attribute of a study, which the dashboard does not list; None if it is missing."""
    return study._storage.get_study_system_attrs(study._study_id).get(key)


def set_study_attribute(study: optuna.Study, key: str, value: Any) -> None:
    """Set a system attribute of a study."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def add_trial(study: optuna.Study, trial: FrozenTrial) -> None:
    """Append a copy of a trial of another study without Optuna's checks, which reject trials created by hand."""
    study._storage.create_new_trial(study._study_id, template_trial=trial)


def rename_study(study: optuna.Study, name: str) -> None:
    """Atomically rename a study in a database."""
    change = sqlalchemy.update(_STUDIES).where(_STUDIES.c.study_id == study._study_id).values(study_name=name)
    with rdb_storage(study).engine.begin() as connection:
        connection.execute(change)


def trial_id_of(study: optuna.Study, number: int) -> int:
    """Return the database id of the trial with this number, which must have been read before."""
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def report_again(trial: Trial, value: float, step: int) -> None:
    """Report a value and replace an earlier attempt's value for the same step, unlike `Trial.report`."""
    trial.storage.set_trial_intermediate_value(trial._trial_id, step, value)
    trial._cached_frozen_trial.intermediate_values[step] = value  # pruners read this copy


def set_artifact_attribute(trial: Trial, identifier: str, name: str, media_type: str) -> None:
    """Record an artifact of a running trial, as `optuna.artifacts.upload_artifact` does."""
    meta = ArtifactMeta(artifact_id=identifier, filename=name, mimetype=media_type, encoding=None)
    attribute = ARTIFACT_ATTRIBUTE + identifier
    if attribute not in trial._cached_frozen_trial.system_attrs:
        trial.storage.set_trial_system_attr(trial._trial_id, attribute, json.dumps(asdict(meta)))
        trial._cached_frozen_trial.system_attrs[attribute] = json.dumps(asdict(meta))


def require_methods(owner: type, names: Iterable[str]) -> None:
    """Check that a class of the installed Optuna version has all methods that this package overrides or calls.

    Raises:
        ConfigurationError: A method is missing, so Optuna would never call the method that overrides it.
    """
    missing = [name for name in names if not callable(getattr(owner, name, None))]
    if missing:
        raise ConfigurationError(
            f"optuna {optuna.__version__}: {owner.__name__} has no {' and no '.join(missing)}, which this program "
            "replaces; install a supported version: pip install 'optuna>=5.0,<5.1'"
        )


require_methods(TPESampler, ("_build_parzen_estimator",))


class NarrowTPESampler(TPESampler):
    """Optuna's TPE sampler, except that the kernels around the good trials are a third as wide.

    TPE models the best tenth of the trials by one kernel each. The standard deviation of the only kernel of up to ten
    trials is half of a parameter's range or more, and with two kernels a quarter, so that dozens of trials are sampled
    nearly at random. The kernels of the other trials and the prior keep their width.
    """

    def _build_parzen_estimator(
        self, study: Study, search_space: dict[str, BaseDistribution], trials: list[FrozenTrial], handle_below: bool
    ) -> _ParzenEstimator:
        estimator = super()._build_parzen_estimator(study, search_space, trials, handle_below)
        if handle_below:
            mixture = estimator._mixture_distribution
            narrowed = [_with_narrow_kernels(distribution) for distribution in mixture.distributions]
            estimator._mixture_distribution = mixture._replace(distributions=narrowed)
        return estimator


def _with_narrow_kernels(distribution: Any) -> Any:
    """Return the kernels of a parameter, for numbers a third as wide; the last kernel, the prior, is unchanged."""
    if not hasattr(distribution, "sigma"):
        return distribution
    return distribution._replace(sigma=np.append(distribution.sigma[:-1] / 3, distribution.sigma[-1:]))


def hide_gp_warnings() -> None:
    """Hide the GP sampler's warnings, for example about its speed and its convergence."""
    logging.getLogger("optuna._gp").setLevel(logging.ERROR)


def cached_storage(storage: RDBStorage) -> BaseStorage:
    """Wrap a storage in Optuna's cache of finished trials."""
    return _CachedStorage(storage)


def rdb_storage(study: optuna.Study) -> RDBStorage:
    """Return the database storage behind a study's cache.

    Raises:
        TypeError: The study is stored in memory or in a journal file.
    """
    storage = study._storage
    if not isinstance(storage, _CachedStorage):
        raise TypeError(f"found a study in the storage {type(storage).__name__}; expected a study in a database")
    return storage._backend
