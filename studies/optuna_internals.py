"""Every name of Optuna 5 that is not public and that this package needs, in one place.

Optuna's public API can neither claim a waiting trial exactly once on SQLite (it reads, then writes) nor go on
with a trial that another process began. `tests/studies/test_optuna_internals.py` fails if a new Optuna
changes any of it.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage, _CachedStorage
from optuna.trial import FrozenTrial, Trial, TrialState

_TRIALS = sqlalchemy.table(
    "trials",
    sqlalchemy.column("trial_id", sqlalchemy.Integer),
    sqlalchemy.column("state", sqlalchemy.Enum(TrialState)),
    sqlalchemy.column("datetime_start", sqlalchemy.DateTime),
)
_JOINT_DRAW = ":relative_params:"


def continue_trial(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """Return a running trial as the object that suggests and reports, under its own number.

    `study.get_trials` must have seen the trial before: Optuna's cache refuses to store parameters of others.
    """
    # Samplers remember the history that they first saw; only `ask`, which is not used here, makes them look again.
    study._thread_local.cached_all_trials = None
    return Trial(study, trial._trial_id)


def set_running_if_waiting(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Turn a waiting trial into a running one in a single statement, so that only one of many can succeed.

    Returns:
        Whether it was this call that did it.
    """
    # Optuna keeps naive UTC in the database.
    now = datetime.now(UTC).replace(tzinfo=None)
    statement = (
        sqlalchemy.update(_TRIALS)
        .where(_TRIALS.c.trial_id == trial._trial_id, _TRIALS.c.state == TrialState.WAITING)
        .values(state=TrialState.RUNNING, datetime_start=now)
    )
    with rdb_storage(study).engine.begin() as connection:
        return connection.execute(statement).rowcount == 1


def trials_of_this_draw(study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials as they were when the running trial was claimed, which is what samplers go by."""
    return study._get_trials(deepcopy=False, use_cache=True)


def stored_joint_draw(trial: FrozenTrial) -> dict[str, Any]:
    """Return the values that a sampler drew together for a trial and stored on it; empty if none did."""
    parts = {name: text for name, text in trial.system_attrs.items() if _JOINT_DRAW in name}
    text = "".join(parts[name] for name in sorted(parts, key=lambda name: int(name.rpartition(":")[2])))
    try:
        return dict(json.loads(text)) if text else {}
    except json.JSONDecodeError:  # long ones come in parts; one killed in between is drawn again
        return {}


def quiet_gaussian_process() -> None:
    """Keep from users what the Gaussian process notes on its way: how it could be faster, where a step came to rest."""
    logging.getLogger("optuna._gp").setLevel(logging.ERROR)


def rdb_storage(study: optuna.Study) -> RDBStorage:
    """Return the database storage behind a study's cache.

    Raises:
        TypeError: If the study is kept in memory or in a journal file.
    """
    storage = study._storage
    if not isinstance(storage, _CachedStorage):
        raise TypeError(f"a study of this package is kept in a database, but got {type(storage).__name__}")
    return storage._backend
