"""The trials of a study as this process knows them: what has ended or still waits is read from the database once.

Optuna keeps ended trials, but reads every waiting one again at each look, and makes an object of each row that it
reads. Here one narrow question tells which trials are not known yet, and these are read by columns, which takes an
eighth of the time or less: with 10,000 trials, about a second instead of ten.

Of Optuna's names that are not public this needs its own cache and the models of its tables; the other ones that this
package needs are in `optuna_internals`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage, _CachedStorage
from optuna.storages._cached_storage import _StudyInfo
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

# Every trial of a group is a variable of a statement, of which SQLite takes 32,766.
_MOST_AT_ONCE = 500


class TrialCache(_CachedStorage):
    """Optuna's cache of a study's trials, but for two things: it asks for less, and it reads faster.

    A waiting trial is read again when it waits no more. Until then nothing of it changes: all that a waiting trial
    carries is written in the transaction that enqueues it.
    """

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        with self._lock:
            known = self._studies.setdefault(study_id, _StudyInfo())
            trials = read_trials(self._backend, self._changed(study_id, known))
            self._add_trials_to_cache(study_id, trials)
            for trial in trials:
                if trial.state.is_finished():
                    known.unfinished_trial_ids.discard(trial._trial_id)
                    known.last_finished_trial_id = max(known.last_finished_trial_id, trial._trial_id)
                else:
                    known.unfinished_trial_ids.add(trial._trial_id)

    def _changed(self, study_id: int, known: _StudyInfo) -> list[int]:
        """Return the trials, by their place in the database, that may differ from what is known of them.

        Raises:
            KeyError: If the study was deleted.
        """
        study, trial = models.StudyModel, models.TrialModel
        open_or_new = sqlalchemy.or_(
            trial.state.in_((TrialState.WAITING, TrialState.RUNNING)), trial.trial_id > known.last_finished_trial_id
        )
        statement = (
            sqlalchemy.select(trial.trial_id, trial.state)
            .select_from(study)
            .outerjoin(trial, sqlalchemy.and_(trial.study_id == study.study_id, open_or_new))
            .where(study.study_id == study_id)
        )
        with _create_scoped_session(self._backend.scoped_session) as session:
            rows = session.execute(statement).all()
        if not rows:
            raise KeyError(models.NOT_FOUND_MSG)
        now = {trial_id: state for trial_id, state in rows if trial_id is not None}
        still_waiting = {
            trial_id
            for trial_id in known.unfinished_trial_ids
            if now.get(trial_id) == TrialState.WAITING and self._waited(trial_id, known)
        }
        return sorted((now.keys() | known.unfinished_trial_ids) - still_waiting)

    def _waited(self, trial_id: int, known: _StudyInfo) -> bool:
        """Return whether a trial waited when it was read."""
        _, number = self._trial_id_to_study_id_and_number[trial_id]
        return known.trials[number].state == TrialState.WAITING


def read_trials(storage: RDBStorage, trial_ids: Sequence[int]) -> list[FrozenTrial]:
    """Return trials as the storage itself does.

    Args:
        storage: The database.
        trial_ids: Their places in it, in order.

    Raises:
        StorageInternalError: If it cannot be read.
    """
    groups = (trial_ids[start : start + _MOST_AT_ONCE] for start in range(0, len(trial_ids), _MOST_AT_ONCE))
    with _create_scoped_session(storage.scoped_session) as session, _nothing_collected():
        return [trial for group in groups for trial in _read_group(session, group)]


def _read_group(session: Session, trial_ids: Sequence[int]) -> Iterable[FrozenTrial]:
    trial, report, value = models.TrialModel, models.TrialIntermediateValueModel, models.TrialValueModel
    # States come first: all that belongs to an end was written before it, so who sees the end sees the rest.
    columns = (trial.trial_id, trial.number, trial.state, trial._datetime_start_utc, trial._datetime_complete_utc)
    trials = session.execute(
        sqlalchemy.select(*columns).where(trial.trial_id.in_(trial_ids)).order_by(trial.trial_id)
    ).all()
    values = _rows_of(session, trial_ids, value, value.objective, value.value, value.value_type)
    reports = _rows_of(
        session, trial_ids, report, report.step, report.intermediate_value, report.intermediate_value_type
    )
    params, distributions = _params(session, trial_ids)
    user_attrs = _attributes(session, trial_ids, models.TrialUserAttributeModel)
    system_attrs = _attributes(session, trial_ids, models.TrialSystemAttributeModel)
    for trial_id, number, state, begun, ended in trials:
        yield FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=[value.stored_repr_to_value(*stored) for _, *stored in sorted(values[trial_id])] or None,
            datetime_start=_local(begun),
            datetime_complete=_local(ended),
            params=params[trial_id],
            distributions=distributions[trial_id],
            user_attrs=user_attrs[trial_id],
            system_attrs=system_attrs[trial_id],
            intermediate_values={
                step: report.stored_repr_to_intermediate_value(*stored) for step, *stored in reports[trial_id]
            },
            trial_id=trial_id,
        )


def _params(
    session: Session, trial_ids: Sequence[int]
) -> tuple[Mapping[int, dict[str, Any]], Mapping[int, dict[str, BaseDistribution]]]:
    """Return values and distributions of the parameters, by trial, in the order in which they were suggested."""
    model = models.TrialParamModel
    values: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    distributions: defaultdict[int, dict[str, BaseDistribution]] = defaultdict(dict)
    columns = (model.param_id, model.param_name, model.param_value, model.distribution_json)
    for trial_id, rows in _rows_of(session, trial_ids, model, *columns).items():
        for _, name, internal, text in sorted(rows):
            distribution = _distribution(text)
            distributions[trial_id][name] = distribution
            values[trial_id][name] = distribution.to_external_repr(internal)
    return values, distributions


def _attributes(session: Session, trial_ids: Sequence[int], model: Any) -> Mapping[int, dict[str, Any]]:
    rows = _rows_of(session, trial_ids, model, model.key, model.value_json)
    return defaultdict(dict, {trial_id: {key: json.loads(text) for key, text in own} for trial_id, own in rows.items()})


def _rows_of(session: Session, trial_ids: Sequence[int], model: Any, *columns: Any) -> Mapping[int, list[Any]]:
    """Return some columns of the rows that a table has of trials, by trial."""
    found: defaultdict[int, list[Any]] = defaultdict(list)
    statement = sqlalchemy.select(model.trial_id, *columns).where(model.trial_id.in_(trial_ids))
    for trial_id, *row in session.execute(statement):
        found[trial_id].append(row)
    return found


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Keep Python from looking for garbage: all that is read stays, and going through it takes as long as reading."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# A study has few distributions, and each is in the database once for every trial.
@functools.lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _local(moment: datetime | None) -> datetime | None:
    """Return the local time of a moment; the database has naive UTC, Optuna's trials have naive local times."""
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
