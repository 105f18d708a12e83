"""PostgreSQL advisory locks: only one process on any machine can hold a lock.

The server frees the locks of a session when the session ends: at once if the client process exits, and after
`SECONDS_UNTIL_LOST` if the client's machine is no longer reachable. A process also loses its locks if the server
restarts or the connection is lost. So the locks of a process use a separate connection, which a thread checks every
second. If the connection is lost, the thread reconnects and acquires the locks again. Another process that finds a lock
free must therefore wait before it takes over a trial: see `studies.trials.leases`.

https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from search_spaces.errors import ConfigurationError

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_CHECKS = 1.0
_POLL_S = 0.05
# The server probes an idle connection after _IDLE_S, then every _INTERVAL_S, and gives up after _PROBES without answer.
_IDLE_S, _INTERVAL_S, _PROBES = 10, 5, 3
SECONDS_UNTIL_LOST = _IDLE_S + _INTERVAL_S * _PROBES
_SETTINGS = {
    "tcp_keepalives_idle": _IDLE_S,
    "tcp_keepalives_interval": _INTERVAL_S,
    "tcp_keepalives_count": _PROBES,
    # Without this, the server would resend an unacknowledged response for a quarter of an hour.
    "tcp_user_timeout": SECONDS_UNTIL_LOST * 1000,
    # A session that holds locks is idle.
    "idle_session_timeout": 0,
}

Connect = Callable[[], sqlalchemy.Connection]


@dataclass(frozen=True)
class LockKey:
    """The key of a lock: two signed 32-bit numbers, as PostgreSQL expects them."""

    kind: int
    number: int

    @classmethod
    def of(cls, kind: str, name: int | str, schema: str) -> LockKey:
        """Return the lock key of an object.

        Args:
            kind: Kind of the object; hashed with the program's name, so other programs hardly ever use the same key.
            name: Number or name of the object.
            schema: The schema of Optuna's tables, because trials in different schemas may have the same numbers.
        """
        number = name if isinstance(name, int) else _hash(name)
        return cls(_hash(f"khmer-ocr-tuner {kind} {schema}"), number)


class LockLost(StorageInternalError):
    """The connection that held a lock was lost, so another process may hold the lock now."""


class AdvisoryLocks:
    """The advisory locks that this process holds in a database, on one connection."""

    def __init__(self, connect: Connect, connect_with_retries: Connect) -> None:
        """Store the connection functions; the first acquired lock opens the connection.

        Args:
            connect: Function that returns a new connection in autocommit mode, without retries.
            connect_with_retries: Function that does the same, but retries while the server cannot be reached.
        """
        self._connect = connect
        self._connect_with_retries = connect_with_retries
        self._connection: sqlalchemy.Connection | None = None
        self._held: set[LockKey] = set()
        # The locks in `_held` that the server freed when the connection was lost.
        self._lost: set[LockKey] = set()
        # The locks held by `waiting`. A lost one is not acquired again: another process may have held it meanwhile.
        self._sections: set[LockKey] = set()
        self._mutex = threading.RLock()
        self._checker: threading.Thread | None = None

    def try_acquire(self, key: LockKey) -> bool:
        """Acquire a lock if it is free.

        Returns:
            Whether this call acquired the lock; False if any process, this one included, holds it already.

        Raises:
            SQLAlchemyError: The database cannot be reached.
        """
        with self._mutex:
            if key in self._held or not self._acquire(key):
                return False
            self._held.add(key)
            self._start_checker()
            return True

    def free(self, key: LockKey) -> None:
        """Free a lock; do nothing if this process does not hold it."""
        with self._mutex:
            if key not in self._held:
                return
            self._held.discard(key)
            self._lost.discard(key)
            # If the connection is lost, the server has freed the lock already.
            with contextlib.suppress(SQLAlchemyError):
                if self._connection is not None:
                    self._query("SELECT pg_advisory_unlock(:kind, :number)", key)

    @contextlib.contextmanager
    def waiting(self, key: LockKey, what: str, *, timeout_s: float) -> Iterator[None]:
        """Wait for a lock, and hold it in the body of a ``with`` statement.

        Args:
            key: The lock.
            what: The locked object, for the error message.
            timeout_s: Maximum wait in seconds.

        Raises:
            ConfigurationError: Another process does not free the lock in time.
            SQLAlchemyError: The database cannot be reached.
        """
        deadline = time.monotonic() + timeout_s
        while not self.try_acquire(key):
            if time.monotonic() >= deadline:
                raise ConfigurationError(
                    f"{what}: another process has held the lock in the database for {timeout_s:g} s; let it continue "
                    "(a stopped process: kill -CONT) or end it, then repeat the command"
                )
            time.sleep(_POLL_S)
        self._sections.add(key)
        try:
            yield
        finally:
            self._sections.discard(key)
            self.free(key)

    def check_sections(self) -> None:
        """Check that this process has not lost a lock that it acquired by `waiting`.

        Raises:
            LockLost: The connection was lost after the lock was acquired.
            SQLAlchemyError: This check failed, because the connection is lost.
        """
        with self._mutex:
            if not self._sections:
                return
            if self._connection is None or self._sections & self._lost or not self._sections <= self._held:
                raise LockLost("the connection to the database was lost")
            self._connection.exec_driver_sql("SELECT 1")

    def close(self) -> None:
        """Free all locks and close the connection."""
        with self._mutex:
            self._held.clear()
            self._lost.clear()
            self._disconnect()

    def _acquire(self, key: LockKey) -> bool:
        if self._connection is None:
            self._reconnect(self._connect_with_retries)
        try:
            return bool(self._query("SELECT pg_try_advisory_lock(:kind, :number)", key))
        except SQLAlchemyError:
            # The connection may have been lost since the last check; a second failure has another reason.
            self._reconnect(self._connect_with_retries)
            return bool(self._query("SELECT pg_try_advisory_lock(:kind, :number)", key))

    def _query(self, statement: str, key: LockKey) -> object:
        assert self._connection is not None
        values = {"kind": key.kind, "number": key.number}
        return self._connection.execute(sqlalchemy.text(statement), values).scalar()

    def _reconnect(self, connect: Connect) -> None:
        self._disconnect()
        self._lost |= self._held
        self._connection = connect()
        self._reacquire()

    def _reacquire(self) -> None:
        for key in sorted(self._lost - self._sections, key=lambda key: (key.kind, key.number)):
            if self._query("SELECT pg_try_advisory_lock(:kind, :number)", key):
                self._lost.discard(key)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.invalidate()
                connection.close()

    def _start_checker(self) -> None:
        if self._checker is None:
            self._checker = threading.Thread(
                target=_keep_checking, args=(weakref.ref(self),), name="advisory-locks", daemon=True
            )
            self._checker.start()

    def _check_connection(self) -> None:
        """Check the connection and re-establish it if it is lost."""
        with self._mutex:
            if not self._held:
                return
            try:
                if self._connection is None:
                    self._reconnect(self._connect)
                elif self._lost - self._sections:
                    self._reacquire()
                else:
                    self._connection.exec_driver_sql("SELECT 1")
            except Exception as error:  # any error: the worker continues, and the next check may succeed
                log.debug("the connection for the advisory locks is lost: %s", type(error).__name__)
                self._disconnect()


def notice_lost_clients(connection: Any) -> None:
    """Make the server end this session, and free its locks, if this machine is no longer reachable.

    Args:
        connection: A new connection, as returned by the database driver.
    """
    # Only the settings that the server knows: older versions lack `idle_session_timeout`.
    query = (
        "SELECT set_config(name, wanted.value, false) FROM pg_settings "
        "JOIN unnest(%s::text[], %s::text[]) AS wanted (name, value) USING (name)"
    )
    with connection.cursor() as cursor:
        cursor.execute(query, (list(_SETTINGS), [str(value) for value in _SETTINGS.values()]))
    connection.commit()


def _keep_checking(reference: weakref.ref[AdvisoryLocks]) -> None:
    """Check the connection for the locks every second until the locks are garbage-collected."""
    while (locks := reference()) is not None:
        locks._check_connection()
        del locks
        time.sleep(_SECONDS_BETWEEN_CHECKS)


def _hash(text: str) -> int:
    unsigned = zlib.crc32(text.encode())
    return unsigned - 2**32 if unsigned >= 2**31 else unsigned
