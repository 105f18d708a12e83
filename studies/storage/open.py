"""Opening the database of a study, for work or for reading only.

Optuna's own log lines below a warning are switched off here, once, for the whole program.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from search_spaces.diagnostics.atomic_files import flush_to_disk
from search_spaces.diagnostics.disk_errors import disk_error_text
from search_spaces.errors import ConfigurationError
from search_spaces.files.file_locks import wait_for_lock
from studies.storage.optuna_private import DECODING_ERRORS, DecodingStorage, damage_text
from studies.storage.postgresql import PostgresStorage, causes_of
from studies.storage.url import SECRET_OPTIONS, complete_url, mask_password, sqlite_path, sqlite_url

# What Optuna and SQLAlchemy raise when the database cannot be used; `storage_error_text` explains it.
DATABASE_ERRORS = (StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
BUSY_TIMEOUT_S = 300.0
INTERNAL_FOLDER = ".study"


def open_storage(url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> RDBStorage:
    """Open a study database for work and create it if it is missing.

    A new SQLite database is made under another name and takes its own when complete, so that a kill never
    leaves half of one and processes that start together share one. The rollback journal stays (SQLite's
    default): many versions of SQLite lose data with a write-ahead log. No heartbeat: leases tell who is alive.

    Args:
        url: A URL that `check_storage_url` accepts.
        busy_timeout_s: Seconds to wait while another process writes, or is stopped while it does, or while a server
            that was there when this was called cannot be reached.

    Returns:
        The storage.

    Raises:
        ConfigurationError: If the database is of another Optuna version, damaged, or cannot be reached or
            written.
    """
    path = sqlite_path(url)
    if path is None:
        return _connected(url, lambda: PostgresStorage(complete_url(url), patience_s=busy_timeout_s))
    try:
        if _is_missing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with wait_for_lock(path.parent / INTERNAL_FOLDER / "database.lock", timeout_s=busy_timeout_s):
                _create_database(path)
        return _connect(sqlite_url(path), {"connect_args": {"timeout": busy_timeout_s}})
    except OSError as error:
        raise ConfigurationError(disk_error_text(error, path)) from error


def open_storage_for_reading(url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> RDBStorage:
    """Open an existing study database for `status`, `export` and the like: nothing is created or written.

    SQLite alone may still finish what a killed writer left behind, as for any reader.

    Args:
        url: A URL that `check_storage_url` accepts.
        busy_timeout_s: Seconds to wait while another process writes.

    Returns:
        The storage; writing through it fails.

    Raises:
        ConfigurationError: If there is no such database, or it cannot be read.
    """
    path = sqlite_path(url)
    if path is None:
        return _connected(url, lambda: PostgresStorage(complete_url(url), patience_s=0.0, for_reading=True))
    if _is_missing(path):
        raise ConfigurationError(f"{path}: there is no study database; `khmer-tuner run` creates one")

    def connect_read_only() -> sqlite3.Connection:
        # mode=rw, unlike the default, never creates the file; a hot journal still needs the right to write.
        uri = f"file:{quote(str(path))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout_s, check_same_thread=False)
        connection.execute("PRAGMA query_only = ON")
        return connection

    return _connect(sqlite_url(path), {"creator": connect_read_only}, for_reading=True)


def storage_error_text(error: Exception, url: str) -> str:
    """Say in one line what a database error means and what to do.

    Args:
        error: What Optuna, SQLAlchemy or `sqlite3` raised.
        url: The storage's URL; its password is not shown.

    Returns:
        Place, reason and remedy; "" for an error of another kind. What was committed before is safe in every case.
    """
    place = sqlite_path(url) or mask_password(url)
    if isinstance(error, DECODING_ERRORS):
        modules = (frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__))
        what = f"{place}, value {getattr(error, 'doc', '')[:80]!r}"  # a JSONDecodeError has the text
        return damage_text(what, error) if any("optuna.storages" in name for name in modules) else ""
    if isinstance(error, sqlalchemy.exc.ArgumentError) or not isinstance(error, (*DATABASE_ERRORS, sqlite3.Error)):
        return ""
    causes: list[BaseException] = [error.__cause__ or error]
    for cause in causes_of(error):
        if (original := getattr(cause, "orig", None)) is not None:  # what the driver raised
            causes.append(original)
            break
    reason = str(causes[-1]).strip()
    # PostgreSQL tells in several lines, and shows the place in the statement.
    reason = " ".join(reason.partition("\nLINE ")[0].split())
    if any(getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED for cause in causes):
        # In SQLite's words it is read-only.
        return f"{place}: it was removed or replaced while in use; put it back, then repeat the command to go on"
    remedy = next((text for sign, text in _REMEDIES.items() if sign in reason), "repeat the command to go on")
    parsed = sqlalchemy.make_url(url)
    options = (value for name in SECRET_OPTIONS for value in parsed.normalized_query.get(name, ()))
    for secret in filter(None, (url, parsed.password, *options)):
        reason = reason.replace(str(secret), "***")
    return f"{place}: {reason}; {remedy}"


_REMEDIES = {
    "disk is full": "make room on that disk, then repeat the command to go on",
    "disk I/O error": "check that disk (full or failing), then repeat the command to go on",
    "readonly database": "make the file and its folder writable, then repeat the command to go on",
    "unable to open": "make its folder readable and writable and room on the disk, then repeat the command to go on",
    "is locked": "another process holds the database (a stopped one: kill -CONT); let it go on, then repeat",
    'relation "version_info" does not exist': "no study has begun in this database; `khmer-tuner run` begins one",
    "password authentication failed": "tell the right password in ~/.pgpass, PGPASSWORD or the URL",
    "no password supplied": "tell the password in ~/.pgpass, PGPASSWORD or the URL",
    "Connection refused": "no server listens there; start it or correct the URL",
    "permission denied for schema": "let the user create tables there (GRANT CREATE ON SCHEMA), or use another role",
    "permission denied for": "GRANT it INSERT, UPDATE, DELETE on tables and USAGE on sequences, or use another role",
    "no schema has been selected": "create a schema of the user's search path, or correct the URL",
    "failed to resolve host": "correct the host in the URL",
    "connect_timeout": "correct the URL's options after '?'",
    "does not support SSL": "leave out sslmode, or let the server use SSL",
    "sslmode": "correct the URL's options after '?'",
    '" does not exist': "create that on the server (createdb, createuser) or correct the URL",
    "malformed": "the file is damaged; restore a copy or choose another --output-dir",
    "not a database": "the file is damaged; restore a copy or choose another --output-dir",
}


def _is_missing(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _create_database(path: Path) -> None:
    if not _is_missing(path):
        return
    # The name is always the same, so that what a killed process left is written over.
    unfinished = path.parent / INTERNAL_FOLDER / "unfinished.db"
    for leftover in (unfinished, unfinished.with_name(unfinished.name + "-journal")):
        leftover.unlink(missing_ok=True)
    unfinished.touch()  # with the permissions of the umask; SQLite would use at most 0644
    storage = _connect(sqlite_url(unfinished), {"creator": lambda: _connect_in_haste(unfinished)})
    storage.remove_session()
    storage.engine.dispose()
    flush_to_disk(unfinished)
    os.replace(unfinished, path)
    flush_to_disk(path.parent)


def _connect_in_haste(path: Path) -> sqlite3.Connection:
    # Forty tables and indexes, each waiting for the disk, take most of a second; one flush at the end does as
    # well.
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def _connect(url: str, engine_options: dict[str, Any], *, for_reading: bool = False) -> RDBStorage:
    return _connected(url, lambda: DecodingStorage(complete_url(url), engine_options, skip_table_creation=for_reading))


def _connected(url: str, connect: Callable[[], RDBStorage]) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # It warns of a connection that broke while trials were read, with the whole statement; the error says it.
    logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)
    try:
        return connect()
    except DATABASE_ERRORS as error:
        raise ConfigurationError(storage_error_text(error, url)) from error
    except RuntimeError as error:
        # The only one that Optuna raises here; its text names the command that upgrades the tables.
        raise ConfigurationError(f"{mask_password(url)}: {error}") from error
