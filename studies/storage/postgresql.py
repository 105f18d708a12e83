"""PostgreSQL as the storage of a study that many machines work on: Optuna's own, with patience and a fence.

Patience: a connection that cannot be had is tried for again and again, so that a restart of the server is ridden out.
What breaks in the middle of a transaction is an error as ever, since nobody knows whether it was committed; whoever
works on a trial then lets go of it and claims it again.

Fence: a worker that was cut off or stopped for so long that another one has taken its trial over must not write into it
any more. Each process that begins a trial, or takes it over, writes itself into the trial's attempts; every later write
into the trial happens in one transaction with the look whether these are still the ones it wrote, and a lock on them
until it is done. Which of two comes first is so the database's decision, in whatever order their messages arrive.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from os import getpid
from typing import Any, cast

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from search_spaces.errors import ConfigurationError
from studies.locks.advisory_locks import SECONDS_UNTIL_LOST, AdvisoryLocks, LockKey, LockLost, notice_lost_clients
from studies.storage.optuna_private import DecodingStorage

log = logging.getLogger(__name__)

# User attribute of a trial that the fence compares: only the worker of its latest attempt may write.
ATTEMPTS = "attempts"

# Each process has one connection for its locks, and of these seldom more than one.
_MOST_CONNECTIONS = 3
_CONNECT_TIMEOUT_S = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_KEEP_ALIVE = {
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # What was sent and nobody acknowledged: the network is gone, so waiting for an answer is of no use.
    "tcp_user_timeout": SECONDS_UNTIL_LOST * 1000,
}


class LeaseLost(BaseException):
    """Another worker has taken over the trial that this process worked on, and that seemed to be dead.

    It is no error of the trial's, and only the work loop catches it.
    """


def require_methods(owner: type, names: Iterable[str]) -> None:
    """Refuse a version of Optuna in which a method that this package overrides or calls no longer exists.

    Raises:
        ConfigurationError: One is missing: what overrides it would silently never run.
    """
    missing = [name for name in names if not callable(getattr(owner, name, None))]
    if missing:
        raise ConfigurationError(
            f"optuna {optuna.__version__}: {owner.__name__} has no {' and no '.join(missing)}, which keeps a worker "
            "that lost its trial from writing; install the version that this program was made for: "
            "pip install 'optuna>=5.0,<5.1'"
        )


require_methods(
    RDBStorage,
    (
        "_create_new_trial",
        "_get_prepared_new_trial",
        "_set_trial_param",
        "_set_trial_attr_without_commit",
        "set_trial_state_values",
        "set_trial_intermediate_value",
        "_build_frozen_trial_from_trial_model",
    ),
)


def is_connection_lost(error: BaseException) -> bool:
    """Return whether a connection to the database broke in the middle of something; another one can be had by now."""
    return isinstance(error, LockLost) or any(
        isinstance(cause, DBAPIError) and cause.connection_invalidated for cause in causes_of(error)
    )


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, the error itself first.

    Where reading trials fails, Optuna repeats the query on the same, broken connection and raises that error instead.
    """
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


class PostgresStorage(DecodingStorage):
    """Optuna's storage on PostgreSQL.

    Attributes:
        locks: This process's advisory locks.
        schema: The schema that Optuna's tables are in.
        unrecorded_releases: Trials that this process has released but not recorded as such yet, with their number of
            attempts.
    """

    def __init__(self, url: str, *, patience_s: float, for_reading: bool = False) -> None:
        """Connect, at once or not at all, and create the tables where they are missing.

        Args:
            url: A URL that `check_storage_url` accepts.
            patience_s: Seconds to go on trying to connect, from now on.
            for_reading: Whether nothing is to be created or written.

        Raises:
            SQLAlchemyError, StorageInternalError, RuntimeError: As `RDBStorage`.
        """
        place = sqlalchemy.make_url(url)
        self._patience_s = 0.0
        self._fences: dict[int, str] = {}
        self.unrecorded_releases: dict[int, int] = {}
        self._connect = _connecting(place)
        alone, patient = (
            sqlalchemy.create_engine(place, creator=creator, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            for creator in (self._connect, self._connect_patiently)
        )
        self.locks = AdvisoryLocks(alone.connect, patient.connect)
        options = {
            "creator": self._connect_patiently,
            "pool_pre_ping": True,
            "pool_size": 1,
            "max_overflow": _MOST_CONNECTIONS - 1,
            "execution_options": {"postgresql_readonly": for_reading},
        }
        with alone.connect() as connection:
            self.schema = _schema(connection)
        with self._alone(timeout_s=patience_s) if not for_reading else contextlib.nullcontext():
            super().__init__(url, options, skip_table_creation=for_reading)
        with self.engine.connect() as connection:
            self.schema = _schema(connection)
            if not for_reading:  # finds a missing privilege before anything is created in the output folder
                connection.exec_driver_sql("UPDATE trials SET number = number WHERE false")
        self._patience_s = patience_s

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        """Do not wait for a server that cannot be reached, in a ``with`` statement."""
        patience_s, self._patience_s = self._patience_s, 0.0
        try:
            yield
        finally:
            self._patience_s = patience_s

    def lock_key(self, kind: str, name: int | str) -> LockKey:
        """Return the key of a lock on something in this storage."""
        return LockKey.of(kind, name, self.schema)

    def held_numbers(self, kind: str) -> set[int]:
        """Return the numbers of all things of a kind that some process holds the lock of."""
        query = (
            "SELECT objid::bigint FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
            "WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND datname = current_database() "
            "AND classid::bigint = :kind"
        )
        # The server keeps the two numbers without their signs.
        kind_number = self.lock_key(kind, 0).kind % 2**32
        with self.engine.connect() as connection:
            return set(connection.execute(sqlalchemy.text(query), {"kind": kind_number}).scalars())

    def seconds_up(self) -> float:
        """Return for how many seconds the server has been running."""
        with self.engine.connect() as connection:
            up = connection.exec_driver_sql("SELECT now() - pg_postmaster_start_time()").scalar()
        return up.total_seconds() if isinstance(up, timedelta) else 0.0

    def fence(self, trial_id: int, attempts: str) -> None:
        """Write into a trial, from now on, only as long as its attempts are these.

        Args:
            trial_id: The trial's place in the database.
            attempts: The attempts, as the database has them.
        """
        self._fences[trial_id] = attempts

    def unfence(self, trial_id: int) -> None:
        """Forget about a trial that this process does not work on any more."""
        self._fences.pop(trial_id, None)

    def check_fence(self, trial_id: int) -> None:
        """Make sure that nobody has taken a trial over.

        Raises:
            LeaseLost: Somebody has.
        """
        self._guard(trial_id)
        self.remove_session()

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        """Add a trial, once: Optuna tries again what failed, even if it was committed and only the answer was lost."""
        if template_trial is None:  # asked for, which this package never does
            return super()._create_new_trial(study_id)
        with _create_scoped_session(self.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            self.locks.check_sections()
            trial = self._get_prepared_new_trial(study_id, template_trial, session)
            frozen = copy.deepcopy(template_trial)
            frozen.number, frozen._trial_id = cast(int, trial.number), cast(int, trial.trial_id)
            return frozen

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None = None,
    ) -> None:
        self._guard(trial_id)
        super()._set_trial_param(trial_id, param_name, param_value_internal, distribution, previous_distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set a trial's state, if it is this process's still."""
        self._guard(trial_id)
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set what a trial reported, if it is this process's still."""
        self._guard(trial_id)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def _set_trial_attr_without_commit(
        self, session: Session, model_cls: Any, trial_id: int, key: str, value: Any
    ) -> None:
        self._guard(trial_id)
        super()._set_trial_attr_without_commit(session, model_cls, trial_id, key, value)

    def _guard(self, trial_id: int) -> None:
        """Look at a fence, and keep it as it is until the transaction ends that this begins.

        Optuna's methods have one session for each thread, so what they write next is in the same transaction.
        """
        mine = self._fences.get(trial_id)
        if mine is None:
            return
        attribute = models.TrialUserAttributeModel
        look = (
            sqlalchemy.select(attribute.trial_id)
            .where(attribute.trial_id == trial_id, attribute.key == ATTEMPTS, attribute.value_json == mine)
            .with_for_update(read=True)
        )
        try:
            if self.scoped_session().execute(look).first() is None:
                raise LeaseLost(f"trial {trial_id} is another worker's now")
        except BaseException:
            self.remove_session()
            raise

    @contextlib.contextmanager
    def _alone(self, timeout_s: float) -> Iterator[None]:
        """Keep processes that begin together from creating the tables together."""
        try:
            with self.locks.waiting(self.lock_key("tables", 0), "the study database", timeout_s=timeout_s):
                yield
        finally:
            self.locks.close()  # many processes never need another lock

    def _connect_patiently(self) -> Any:
        deadline = time.monotonic() + self._patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self._connect()
            except Exception as error:
                if time.monotonic() >= deadline:
                    raise
                if pause_s == _FIRST_PAUSE_S:
                    reason = _in_a_line(error)
                    log.warning("the database cannot be reached (%s); trying for %.0f s", reason, self._patience_s)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _schema(connection: sqlalchemy.Connection) -> str:
    """Return the schema that Optuna's tables are in, or would be made in: roles have search paths of their own."""
    query = (
        "SELECT coalesce((SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('trials')), "
        "current_schema())"
    )
    return str(connection.exec_driver_sql(query).scalar())


def _in_a_line(error: Exception) -> str:
    """Return what PostgreSQL's client library says of a connection, without the questions below it."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith(("\t", "- "))]
    return (lines or [type(error).__name__])[0].strip()


def _connecting(place: sqlalchemy.URL) -> Callable[[], Any]:
    """Return what makes a connection of the URL's driver, which is told to notice when the other side is gone."""
    dialect = place.get_dialect()()
    driver = dialect.import_dbapi()
    arguments, options = dialect.create_connect_args(place)
    # What the database's own views of connections show.
    name = f"khmer-tuner {socket.gethostname()}:{getpid()}"

    def connect() -> Any:
        connection = driver.connect(*arguments, **{**_KEEP_ALIVE, "application_name": name, **options})
        notice_lost_clients(connection)
        return connection

    return connect
