"""Functions that open the database of a study, for training or only for reading.

Opening a database also sets Optuna's log level to WARNING in the whole process.
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

from search_spaces.diagnostics.disk import disk_error_text, flush_to_disk
from search_spaces.errors import ConfigurationError
from search_spaces.files.file_locks import wait_for_lock
from studies.storage.optuna_private import DECODING_ERRORS, DecodingStorage, damage_text, rdb_storage
from studies.storage.postgresql import PostgresStorage, causes_of
from studies.storage.url import SECRET_OPTIONS, complete_url, mask_password, sqlite_path, sqlite_url

# Raised by Optuna and SQLAlchemy if the database cannot be used; `storage_error_text` converts them to messages.
DATABASE_ERRORS = (StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
BUSY_TIMEOUT_S = 300.0
INTERNAL_FOLDER = ".study"


def open_storage(url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> RDBStorage:
    """Open a study database for training, and create it if it is missing.

    A new SQLite database is created under a temporary name and renamed when it is complete, so a killed process never
    leaves an incomplete database. A lock ensures that processes that start at the same time create only one database.
    SQLite uses its default rollback journal, because many SQLite versions can lose data with a write-ahead log. Leases
    replace Optuna's heartbeat.

    Args:
        url: A URL that `check_storage_url` accepts.
        busy_timeout_s: Maximum wait in seconds: for a SQLite database that another process has locked, or for a
            PostgreSQL server that can no longer be reached. The first connection to a server is not retried.

    Returns:
        The storage.

    Raises:
        ConfigurationError: Another Optuna version created the database, or the database is damaged, or it cannot be
            reached or written.
    """
    path = sqlite_path(url)
    if path is None:
        return _connected(url, lambda: PostgresStorage(complete_url(url), retry_s=busy_timeout_s))
    try:
        if _is_missing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with wait_for_lock(path.parent / INTERNAL_FOLDER / "database.lock", timeout_s=busy_timeout_s):
                _create_database(path)
        return _connect(sqlite_url(path), {"connect_args": {"timeout": busy_timeout_s}})
    except OSError as error:
        raise ConfigurationError(disk_error_text(error, path)) from error


def open_storage_for_reading(url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> RDBStorage:
    """Open an existing study database for commands that only read it, such as `status` and `export`.

    Nothing is created or written, except that SQLite rolls back the unfinished transaction of a killed process.

    Args:
        url: A URL that `check_storage_url` accepts.
        busy_timeout_s: Maximum wait in seconds for a SQLite database that another process has locked.

    Returns:
        The storage; an attempt to write to it raises an error.

    Raises:
        ConfigurationError: There is no study database at this URL, or it cannot be read.
    """
    path = sqlite_path(url)
    if path is None:
        return _connected(url, lambda: PostgresStorage(complete_url(url), retry_s=0.0, for_reading=True))
    if _is_missing(path):
        raise ConfigurationError(f"{path}: there is no study database; `khmer-tuner run` creates one")

    def connect_read_only() -> sqlite3.Connection:
        # mode=rw, unlike the default, never creates the file; mode=ro could not roll back an unfinished transaction.
        uri = f"file:{quote(str(path))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout_s, check_same_thread=False)
        connection.execute("PRAGMA query_only = ON")
        return connection

    return _connect(sqlite_url(path), {"creator": connect_read_only}, for_reading=True)


def url_with_password(study: optuna.Study, url: str) -> str:
    """Return a study's storage URL with the password that libpq found elsewhere, for processes on other machines."""
    storage = rdb_storage(study)
    return storage.url_with_password() if isinstance(storage, PostgresStorage) else url


def storage_error_text(error: Exception, url: str) -> str:
    """Format a database error as one line with the database's location, the reason and a remedy.

    Args:
        error: The error that Optuna, SQLAlchemy or `sqlite3` raised.
        url: The storage's URL; its password is not shown.

    Returns:
        The line; "" if the error does not come from the database.
    """
    location = sqlite_path(url) or mask_password(url)
    if isinstance(error, DECODING_ERRORS):
        modules = (frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__))
        what = f"{location}, value {getattr(error, 'doc', '')[:80]!r}"  # only a JSONDecodeError has the text
        return damage_text(what, error) if any("optuna.storages" in name for name in modules) else ""
    if isinstance(error, sqlalchemy.exc.ArgumentError) or not isinstance(error, (*DATABASE_ERRORS, sqlite3.Error)):
        return ""
    causes: list[BaseException] = [error.__cause__ or error]
    for cause in causes_of(error):
        if (original := getattr(cause, "orig", None)) is not None:  # the driver's error
            causes.append(original)
            break
    reason = str(causes[-1]).strip()
    # PostgreSQL's message has several lines; the part from "LINE" on quotes the SQL statement.
    reason = " ".join(reason.partition("\nLINE ")[0].split())
    if any(getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED for cause in causes):
        # SQLite's own message says only that the database is read-only.
        return f"{location}: the file was removed or replaced while in use; put it back, then repeat the command"
    remedy = next((text for part, text in _REMEDIES.items() if part in reason), "repeat the command to continue")
    parsed = sqlalchemy.make_url(url)
    options = (value for name in SECRET_OPTIONS for value in parsed.normalized_query.get(name, ()))
    for secret in filter(None, (url, parsed.password, *options)):
        reason = reason.replace(str(secret), "***")
    return f"{location}: {reason}; {remedy}"


_REMEDIES = {
    "disk is full": "free some space on that disk, then repeat the command to continue",
    "disk I/O error": "check that disk (full or failing), then repeat the command to continue",
    "readonly database": "make the file and its folder writable, then repeat the command to continue",
    "unable to open": "make its folder readable and writable and free some space on its disk, then repeat the command",
    "is locked": (
        "let the process that holds the lock continue (a stopped process: kill -CONT), then repeat the command"
    ),
    'relation "version_info" does not exist': "this database contains no study; `khmer-tuner run` creates one",
    "password authentication failed": "put the correct password in ~/.pgpass, PGPASSWORD or the URL",
    "no password supplied": "put the password in ~/.pgpass, PGPASSWORD or the URL",
    "Connection refused": "no server listens at this address; start the server or correct the URL",
    "permission denied for schema": "let the role create tables there (GRANT CREATE ON SCHEMA), or use another role",
    "permission denied for": (
        "grant the role INSERT, UPDATE, DELETE on the tables and USAGE on the sequences, or use another role"
    ),
    "no schema has been selected": "create a schema that is in the role's search_path, or correct the URL",
    "failed to resolve host": "correct the host in the URL",
    "connect_timeout": "correct the URL's options after '?'",
    "does not support SSL": "remove sslmode from the URL, or enable SSL on the server",
    "sslmode": "correct the URL's options after '?'",
    '" does not exist': "create it on the server (createdb, createuser) or correct the URL",
    "malformed": "the file is damaged; restore a backup or choose another --output-dir",
    "not a database": "the file is damaged; restore a backup or choose another --output-dir",
}


def _is_missing(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _create_database(path: Path) -> None:
    if not _is_missing(path):
        return
    # The name is fixed, so the unfinished database of a killed process is replaced.
    unfinished = path.parent / INTERNAL_FOLDER / "unfinished.db"
    for leftover in (unfinished, unfinished.with_name(unfinished.name + "-journal")):
        leftover.unlink(missing_ok=True)
    unfinished.touch()  # with the permissions of the umask; SQLite would grant at most 0644
    storage = _connect(sqlite_url(unfinished), {"creator": lambda: _connect_without_flushes(unfinished)})
    storage.remove_session()
    storage.engine.dispose()
    flush_to_disk(unfinished)
    os.replace(unfinished, path)
    flush_to_disk(path.parent)


def _connect_without_flushes(path: Path) -> sqlite3.Connection:
    # A flush after each of the forty tables and indexes would take most of a second; one flush at the end is enough.
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def _connect(url: str, engine_options: dict[str, Any], *, for_reading: bool = False) -> RDBStorage:
    return _connected(url, lambda: DecodingStorage(complete_url(url), engine_options, skip_table_creation=for_reading))


def _connected(url: str, connect: Callable[[], RDBStorage]) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # This logger reports a lost connection with the whole SQL statement, but the error reports the loss already.
    logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)
    # This one logs a traceback if the cursor of an interrupted statement cannot be closed, which has no consequence.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    try:
        return connect()
    except DATABASE_ERRORS as error:
        raise ConfigurationError(storage_error_text(error, url)) from error
    except RuntimeError as error:
        # Optuna raises RuntimeError here only for tables of another Optuna version; the text names the upgrade command.
        raise ConfigurationError(f"{mask_password(url)}: {error}") from error
