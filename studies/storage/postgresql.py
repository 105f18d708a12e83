"""Optuna's storage on PostgreSQL with connection retries and a fence, for studies that many machines train.

Retries: if the server cannot be reached, the storage retries the connection, so workers continue after a server
restart. A connection lost during a transaction is still an error, because it is unknown whether the server committed
the transaction. The worker then releases its trial and claims it again.

Fence: after a worker has taken over a trial, the trial's previous worker (which was stopped or had lost its connection)
must not write to the trial. So each process that starts or takes over a trial adds itself to the trial's attempts. Each
later write of the process is in one transaction with a query that checks that the attempts are unchanged, and locks
them. So the database decides whether a write or a takeover comes first.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from os import getpid
from typing import Any, cast

import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from studies.locks.advisory_locks import SECONDS_UNTIL_LOST, AdvisoryLocks, LockKey, LockLost, notice_lost_clients
from studies.storage.optuna_private import DecodingStorage, require_methods

log = logging.getLogger(__name__)

# The user attribute that the fence compares; only the worker of a trial's latest attempt may write to the trial.
ATTEMPTS = "attempts"

# Per process, in addition to the connection for the locks; a process rarely needs more than one.
_MAX_CONNECTIONS = 3
_CONNECT_TIMEOUT_S = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_KEEP_ALIVE = {
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # Ends a connection if the server does not acknowledge the sent data, for example after a network failure.
    "tcp_user_timeout": SECONDS_UNTIL_LOST * 1000,
}


class LeaseLost(BaseException):
    """Another worker has taken over a trial, because the lease of this process had expired.

    This is a `BaseException`, because it is not an error of the trial and only the work loop may catch it.
    """


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
    """Return whether an error means that the connection to the database was lost, so a new one may succeed."""
    return isinstance(error, LockLost) or any(
        isinstance(cause, DBAPIError) and cause.connection_invalidated for cause in causes_of(error)
    )


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then its causes and contexts.

    Contexts are included, because if the connection is lost while Optuna reads trials, Optuna repeats the query on the
    same connection and raises the second query's error.
    """
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


class PostgresStorage(DecodingStorage):
    """Optuna's storage on PostgreSQL with connection retries and a fence.

    Attributes:
        locks: This process's advisory locks.
        schema: The schema of Optuna's tables.
        unrecorded_releases: The number of attempts of each trial whose release by this process is not recorded in the
            database yet, keyed by trial id.
    """

    def __init__(self, url: str, *, retry_s: float, for_reading: bool = False) -> None:
        """Connect without retries, and create missing tables.

        Args:
            url: A URL that `check_storage_url` accepts.
            retry_s: Seconds for which later connections are retried while the server cannot be reached.
            for_reading: Whether the storage is only read; no table is created then.

        Raises:
            SQLAlchemyError, StorageInternalError, RuntimeError: As `RDBStorage`.
        """
        self._url = sqlalchemy.make_url(url)
        self._retry_s = 0.0
        self._fences: dict[int, str] = {}
        self.unrecorded_releases: dict[int, int] = {}
        self._connect = _connector(self._url)
        once, retrying = (
            sqlalchemy.create_engine(self._url, creator=creator, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            for creator in (self._connect, self._connect_with_retries)
        )
        self.locks = AdvisoryLocks(once.connect, retrying.connect)
        options = {
            "creator": self._connect_with_retries,
            "pool_pre_ping": True,
            "pool_size": 1,
            "max_overflow": _MAX_CONNECTIONS - 1,
            "execution_options": {"postgresql_readonly": for_reading},
        }
        with once.connect() as connection:
            self.schema = _schema(connection)
        with self._table_lock(timeout_s=retry_s) if not for_reading else contextlib.nullcontext():
            super().__init__(url, options, skip_table_creation=for_reading)
        with self.engine.connect() as connection:
            self.schema = _schema(connection)
            if not for_reading:  # report a missing privilege before anything is created in the output folder
                connection.exec_driver_sql("UPDATE trials SET number = number WHERE false")
        self._retry_s = retry_s

    @contextlib.contextmanager
    def without_retries(self) -> Iterator[None]:
        """Disable connection retries in the body of a ``with`` statement."""
        retry_s, self._retry_s = self._retry_s, 0.0
        try:
            yield
        finally:
            self._retry_s = retry_s

    def url_with_password(self) -> str:
        """Return the URL with the password of this process's connections, for example from ``~/.pgpass``."""
        with self.engine.connect() as connection:
            password = cast(Any, connection.connection.dbapi_connection).info.password
        has_password = self._url.password or "password" in self._url.query or not password
        url = self._url if has_password else self._url.update_query_dict({"password": password})
        return url.render_as_string(hide_password=False)

    def lock_key(self, kind: str, name: int | str) -> LockKey:
        """Return the lock key of an object of this storage, given the object's kind and its number or name."""
        return LockKey.of(kind, name, self.schema)

    def held_numbers(self, kind: str) -> set[int]:
        """Return the numbers of the objects of one kind that any process has locked."""
        query = (
            "SELECT objid::bigint FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
            "WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND datname = current_database() "
            "AND classid::bigint = :kind"
        )
        # `pg_locks` shows both numbers of a key as unsigned.
        kind_number = self.lock_key(kind, 0).kind % 2**32
        with self.engine.connect() as connection:
            return set(connection.execute(sqlalchemy.text(query), {"kind": kind_number}).scalars())

    def seconds_up(self) -> float:
        """Return the number of seconds since the server started."""
        with self.engine.connect() as connection:
            up = connection.exec_driver_sql("SELECT now() - pg_postmaster_start_time()").scalar()
        return up.total_seconds() if isinstance(up, timedelta) else 0.0

    def fence(self, trial_id: int, attempts: str) -> None:
        """Make later writes of this process to a trial raise `LeaseLost` if another worker has taken over the trial.

        Args:
            trial_id: The trial's id in the database.
            attempts: The trial's attempts as JSON, as stored in the database; a takeover changes them.
        """
        self._fences[trial_id] = attempts

    def unfence(self, trial_id: int) -> None:
        """Remove the fence of a trial that this process no longer trains."""
        self._fences.pop(trial_id, None)

    def check_fence(self, trial_id: int) -> None:
        """Check that no other worker has taken over a fenced trial.

        Raises:
            LeaseLost: Another worker has taken over the trial.
        """
        self._guard(trial_id)
        self.remove_session()

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        """Add a trial without Optuna's retry, which would add it twice if only the server's answer was lost."""
        if template_trial is None:  # only `study.ask`, which this package never calls
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
        """Set a trial's state, unless another worker has taken over the trial."""
        self._guard(trial_id)
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set a value that a trial reported, unless another worker has taken over the trial."""
        self._guard(trial_id)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def _set_trial_attr_without_commit(
        self, session: Session, model_cls: Any, trial_id: int, key: str, value: Any
    ) -> None:
        self._guard(trial_id)
        super()._set_trial_attr_without_commit(session, model_cls, trial_id, key, value)

    def _guard(self, trial_id: int) -> None:
        """Start a transaction that checks a trial's fence and locks its attempts until the transaction ends.

        Optuna uses one session per thread, so the write that follows in the same thread is in the same transaction.
        """
        attempts = self._fences.get(trial_id)
        if attempts is None:
            return
        attribute = models.TrialUserAttributeModel
        query = (
            sqlalchemy.select(attribute.trial_id)
            .where(attribute.trial_id == trial_id, attribute.key == ATTEMPTS, attribute.value_json == attempts)
            .with_for_update(read=True)
        )
        try:
            if self.scoped_session().execute(query).first() is None:
                raise LeaseLost(f"another worker has taken over trial {trial_id}")
        except BaseException:
            self.remove_session()
            raise

    @contextlib.contextmanager
    def _table_lock(self, timeout_s: float) -> Iterator[None]:
        """Hold the lock for the creation of the tables in the body of a ``with`` statement."""
        try:
            with self.locks.waiting(self.lock_key("tables", 0), "the study database", timeout_s=timeout_s):
                yield
        finally:
            self.locks.close()  # closes the connection, because many processes never need another lock

    def _connect_with_retries(self) -> Any:
        deadline = time.monotonic() + self._retry_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self._connect()
            except Exception as error:
                if time.monotonic() >= deadline:
                    raise
                if pause_s == _FIRST_PAUSE_S:
                    reason = _one_line(error)
                    log.warning("the database cannot be reached (%s); retrying for %.0f s", reason, self._retry_s)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _schema(connection: sqlalchemy.Connection) -> str:
    """Return the schema of Optuna's tables or, before they exist, the schema in which this role would create them."""
    query = (
        "SELECT coalesce((SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('trials')), "
        "current_schema())"
    )
    return str(connection.exec_driver_sql(query).scalar())


def _one_line(error: Exception) -> str:
    """Return the first line of libpq's message about a failed connection, without hints."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith(("\t", "- "))]
    return (lines or [type(error).__name__])[0].strip()


def _connector(url: sqlalchemy.URL) -> Callable[[], Any]:
    """Return a function that connects to the URL, with keepalives that detect a lost connection."""
    dialect = url.get_dialect()()
    driver = dialect.import_dbapi()
    arguments, options = dialect.create_connect_args(url)
    # Shown by pg_stat_activity.
    name = f"khmer-tuner {socket.gethostname()}:{getpid()}"

    def connect() -> Any:
        connection = driver.connect(*arguments, **{**_KEEP_ALIVE, "application_name": name, **options})
        notice_lost_clients(connection)
        return connection

    return connect
