"""Locks in PostgreSQL that live as long as the connection that took them: how workers on many machines keep apart.

A session's advisory locks are freed by the server when the session ends: at once when its process dies, and after
`SECONDS_UNTIL_LOST` when its machine vanishes without a word. They are lost as well when the server restarts or the
connection breaks, while the process lives on. So they are taken on a connection of their own, which a thread looks
after every second: it connects again as soon as it can, and takes again what this process holds. Whoever finds a lock
free must therefore wait a little before he takes over what it stands for: see `studies.trials.leases`.

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

_SECONDS_BETWEEN_LOOKS = 1.0
_POLL_S = 0.05
# How the server finds out that a machine has vanished: probes after so many idle seconds, so far apart, so many.
_IDLE_S, _INTERVAL_S, _PROBES = 10, 5, 3
SECONDS_UNTIL_LOST = _IDLE_S + _INTERVAL_S * _PROBES
_SETTINGS = {
    "tcp_keepalives_idle": _IDLE_S,
    "tcp_keepalives_interval": _INTERVAL_S,
    "tcp_keepalives_count": _PROBES,
    # An answer that was just under way when it vanished: without this it is sent again for a quarter of an hour.
    "tcp_user_timeout": SECONDS_UNTIL_LOST * 1000,
    # Nobody ends an idle session that holds locks.
    "idle_session_timeout": 0,
}


Connect = Callable[[], sqlalchemy.Connection]


@dataclass(frozen=True)
class LockKey:
    """What a lock is for: two numbers of 32 bits with a sign, as PostgreSQL wants them."""

    kind: int
    number: int

    @classmethod
    def of(cls, kind: str, name: int | str, schema: str) -> LockKey:
        """Return the key of a thing.

        Args:
            kind: What sort of thing it is; locks of other programs in the same database have other keys, but for
                chance.
            name: Which one: a number, or any text.
            schema: The schema that Optuna's tables are in: another one has other trials of the same numbers.
        """
        number = name if isinstance(name, int) else _hash(name)
        return cls(_hash(f"khmer-ocr-tuner {kind} {schema}"), number)


class LockLost(StorageInternalError):
    """What was done under a lock must not go on: its connection broke, so another process may hold it by now."""


class AdvisoryLocks:
    """The advisory locks of this process in a database, on one connection."""

    def __init__(self, connect: Connect, connect_patiently: Connect) -> None:
        """Take how to connect; the first lock does so.

        Args:
            connect: Returns a new connection in autocommit mode, or fails at once.
            connect_patiently: The same, but waits for a server that is away.
        """
        self._connect = connect
        self._connect_patiently = connect_patiently
        self._connection: sqlalchemy.Connection | None = None
        self._held: set[LockKey] = set()
        # What this process holds by its books, and the server does not know of: the connection was lost.
        self._lost: set[LockKey] = set()
        # For these it is not enough to come back soon: nobody waits before he takes them.
        self._sections: set[LockKey] = set()
        self._one_at_a_time = threading.RLock()
        self._keeper: threading.Thread | None = None

    def try_acquire(self, key: LockKey) -> bool:
        """Take a lock if it is free.

        Returns:
            Whether it is this process's now; False too if another part of this process holds it.

        Raises:
            SQLAlchemyError: The database cannot be reached.
        """
        with self._one_at_a_time:
            if key in self._held or not self._take(key):
                return False
            self._held.add(key)
            self._look_after()
            return True

    def free(self, key: LockKey) -> None:
        """Give a lock back; one that is not held is left alone."""
        with self._one_at_a_time:
            if key not in self._held:
                return
            self._held.discard(key)
            self._lost.discard(key)
            # Without a connection there is no lock.
            with contextlib.suppress(SQLAlchemyError):
                if self._connection is not None:
                    self._ask("SELECT pg_advisory_unlock(:kind, :number)", key)

    @contextlib.contextmanager
    def waiting(self, key: LockKey, what: str, *, timeout_s: float) -> Iterator[None]:
        """Hold a lock in a ``with`` statement, once whoever holds it has given it back.

        Args:
            key: Which lock.
            what: What it is for; it begins the message.
            timeout_s: Seconds to wait at most.

        Raises:
            ConfigurationError: It is not free in time.
            SQLAlchemyError: The database cannot be reached.
        """
        deadline = time.monotonic() + timeout_s
        while not self.try_acquire(key):
            if time.monotonic() >= deadline:
                raise ConfigurationError(
                    f"{what}: another process has held its lock in the database for {timeout_s:g} s; let it go on "
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
        """Make sure that nobody else can have got a lock that this process has waited for and holds.

        Raises:
            LockLost: Somebody can: its connection broke meanwhile.
            SQLAlchemyError: It breaks just now.
        """
        with self._one_at_a_time:
            if not self._sections:
                return
            if self._connection is None or self._sections & self._lost or not self._sections <= self._held:
                raise LockLost("the connection to the database broke")
            self._connection.exec_driver_sql("SELECT 1")

    def close(self) -> None:
        """Give all locks back and close the connection."""
        with self._one_at_a_time:
            self._held.clear()
            self._lost.clear()
            self._disconnect()

    def _take(self, key: LockKey) -> bool:
        if self._connection is None:
            self._reconnect(self._connect_patiently)
        try:
            return bool(self._ask("SELECT pg_try_advisory_lock(:kind, :number)", key))
        except SQLAlchemyError:
            # A connection that broke while nobody looked; a second failure is the database's.
            self._reconnect(self._connect_patiently)
            return bool(self._ask("SELECT pg_try_advisory_lock(:kind, :number)", key))

    def _ask(self, statement: str, key: LockKey) -> object:
        assert self._connection is not None
        values = {"kind": key.kind, "number": key.number}
        return self._connection.execute(sqlalchemy.text(statement), values).scalar()

    def _reconnect(self, connect: Connect) -> None:
        """Connect anew, and take again what this process holds."""
        self._disconnect()
        self._lost |= self._held
        self._connection = connect()
        self._take_again()

    def _take_again(self) -> None:
        for key in sorted(self._lost - self._sections, key=lambda key: (key.kind, key.number)):
            if self._ask("SELECT pg_try_advisory_lock(:kind, :number)", key):
                self._lost.discard(key)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.invalidate()
                connection.close()

    def _look_after(self) -> None:
        if self._keeper is None:
            self._keeper = threading.Thread(target=_keep, args=(weakref.ref(self),), name="advisory-locks", daemon=True)
            self._keeper.start()

    def _look(self) -> None:
        """Look whether the connection still stands, and mend it."""
        with self._one_at_a_time:
            if not self._held:
                return
            try:
                if self._connection is None:
                    self._reconnect(self._connect)
                elif self._lost - self._sections:
                    self._take_again()
                else:
                    self._connection.exec_driver_sql("SELECT 1")
            except Exception as error:  # whatever it is, the next look may succeed, and who works goes on until then
                log.debug("the connection of the locks is lost: %s", type(error).__name__)
                self._disconnect()


def notice_lost_clients(connection: Any) -> None:
    """Let the server end a new connection's session, and with it all locks, when the machine has vanished.

    Args:
        connection: The driver's.
    """
    # Those settings that this server knows; older ones lack the last.
    query = (
        "SELECT set_config(name, wanted.value, false) FROM pg_settings "
        "JOIN unnest(%s::text[], %s::text[]) AS wanted (name, value) USING (name)"
    )
    with connection.cursor() as cursor:
        cursor.execute(query, (list(_SETTINGS), [str(value) for value in _SETTINGS.values()]))
    connection.commit()


def _keep(reference: weakref.ref[AdvisoryLocks]) -> None:
    """Look after locks every second, for as long as somebody has them."""
    while (locks := reference()) is not None:
        locks._look()
        del locks
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _hash(text: str) -> int:
    unsigned = zlib.crc32(text.encode())
    return unsigned - 2**32 if unsigned >= 2**31 else unsigned
