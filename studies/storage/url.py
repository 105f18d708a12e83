"""Storage URLs: which are accepted, what is wrong with the others, and how they are shown."""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import sqlalchemy

from search_spaces.diagnostics.disk_errors import way_to_write
from search_spaces.diagnostics.names import path_problem
from search_spaces.errors import ConfigurationError

DATABASE_NAME = "study.db"

_POSTGRESQL_DRIVERS = {
    "postgresql": "psycopg",
    "postgresql+psycopg": "psycopg",
    "postgresql+psycopg2": "psycopg2",
}
_SQLITE_SCHEMES = ("sqlite", "sqlite+pysqlite")
_SQLITE_PATH = re.compile(r"sqlite(\+\w+)?:///")
_SCHEME = re.compile(r"[^:/@]*:?//")
_PASSWORD_OPTION = re.compile(r"(?P<before>[?&][a-z_]*password=)[^&]*", re.IGNORECASE)
# Where a port would be, something else: a password whose user's host is missing.
_NO_PORT = re.compile(r"(?P<before>[^:\[]*:)(?!\d+(?:[/?]|$)).*", re.DOTALL)
# What SQLAlchemy (percent, query) and Optuna (braces) would read as something else than a part of a path.
_ESCAPES = str.maketrans({character: f"%{ord(character):02X}" for character in "%?#{}"})


def default_storage_url(output_dir: str | Path) -> str:
    """Return the URL of the SQLite database in an output folder, with an absolute path."""
    return sqlite_url(Path(output_dir) / DATABASE_NAME)


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite database file; the path is made absolute."""
    return f"sqlite:///{os.path.abspath(path).translate(_ESCAPES)}"


def sqlite_path(url: str) -> Path | None:
    """Return the absolute path of a SQLite URL's file, or None if the URL is of another database."""
    parsed = sqlalchemy.make_url(url)
    if parsed.drivername not in _SQLITE_SCHEMES or not parsed.database:
        return None
    return Path(os.path.abspath(parsed.database))


def complete_url(url: str) -> str:
    """Return the URL with its driver, and a relative SQLite path made absolute, to survive a change of folder."""
    path = sqlite_path(url)
    return _with_driver(sqlalchemy.make_url(url)).render_as_string(False) if path is None else sqlite_url(path)


def mask_password(url: str) -> str:
    """Return the URL with ``***`` for its password, for messages, logs and files.

    Any text is accepted: a misspelt URL must not show its password either, so rather too much of it is hidden.
    """
    if _SQLITE_PATH.match(url):
        return url
    url = _PASSWORD_OPTION.sub(r"\g<before>***", url)
    scheme = match[0] if (match := _SCHEME.match(url)) else ""
    account, at, place = url.removeprefix(scheme).rpartition("@")
    if not at:
        return scheme + _NO_PORT.sub(r"\g<before>***", place)
    user, colon, _ = account.partition(":")
    return f"{scheme}{user}{':***' if colon else ''}@{place}"


def without_password(url: str) -> str:
    """Return the URL without its password, as it may be kept in a file."""
    parsed = _with_driver(sqlalchemy.make_url(url))
    secrets = [name for name in parsed.query if name.casefold().endswith("password")]
    return parsed._replace(password=None).difference_update_query(secrets).render_as_string(hide_password=False)


def check_storage_url(url: str, *, output_dir: str | Path | None = None, for_reading: bool = False) -> None:
    """Refuse a URL that cannot hold a study; nothing is created or changed.

    Args:
        url: What the user gave, or `default_storage_url`.
        output_dir: The study's output folder: it alone may be missing still, since it is created later.
        for_reading: Whether a database that cannot be written will do.

    Raises:
        ConfigurationError: If the URL is mistyped, keeps nothing (`sqlite://`), needs a driver that is not
            installed, or names a file that cannot be or is not a study database.
    """
    problem = _spelling_problem(url) or _scheme_problem(url)
    path = sqlite_path(url) if problem is None else None
    if path is not None:
        problem = _path_problem(path, Path(output_dir) if output_dir is not None else None, for_reading)
    if problem is not None:
        raise ConfigurationError(f"storage URL: found {mask_password(url)!r}; {problem}")


def _with_driver(url: sqlalchemy.URL) -> sqlalchemy.URL:
    """Return a URL that names its driver: SQLAlchemy's own default is an older one."""
    driver = _POSTGRESQL_DRIVERS.get(url.drivername)
    return url if driver is None else url.set(drivername=f"postgresql+{driver}")


def _spelling_problem(url: str) -> str | None:
    if re.fullmatch(r"sqlite(\+\w+)?:/*(:memory:|file:.*)?", url):
        return f"it keeps nothing once the program ends; write sqlite:///{DATABASE_NAME} to keep it in a file"
    if url.startswith("sqlite") and not _SQLITE_PATH.match(url):
        path = re.sub(r"^sqlite(\+\w+)?:?/*", "", url)
        return f"three slashes come before a path, a fourth begins an absolute one; write sqlite:///{_shown(path)}"
    if "://" not in url:
        return f"it has no scheme; write {sqlite_url(Path(_shown(url)))}"
    if url.count("@") > 1 and not _SQLITE_PATH.match(url):
        return "only the '@' before the host is written so; write '@' in a name or password as %40"
    try:
        sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        form = (
            "postgresql+psycopg://USER@HOST:5432/DATABASE"
            if url.startswith("postgres")
            else f"sqlite:///{DATABASE_NAME}"
        )
        return f"it cannot be read as a URL; write for example {form}"
    return None


def _shown(path: str) -> str:
    """Return a path that may be meant, or the usual one if there may be a password in it."""
    return path if path and "@" not in path else DATABASE_NAME


def _scheme_problem(url: str) -> str | None:
    parsed = sqlalchemy.make_url(url)
    scheme = parsed.drivername
    if scheme in _SQLITE_SCHEMES:
        if parsed.query:
            return "SQLite's options after '?' are set by this program; leave them out ('?' in a name is %3F)"
        return None
    if scheme == "postgres":
        return "the scheme is spelt postgresql; write postgresql+psycopg://..."
    driver = _POSTGRESQL_DRIVERS.get(scheme)
    if scheme.lower() in (*_SQLITE_SCHEMES, *_POSTGRESQL_DRIVERS) and scheme != scheme.lower():
        return f"the scheme has small letters only; write {scheme.lower()}://..."
    if driver is None:
        return f"{scheme!r} is not known; write sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE"
    if importlib.util.find_spec(driver) is None:
        package = "'khmer-ocr-tuner[postgresql]'" if driver == "psycopg" else driver
        return f"the Python package {driver!r} is missing; install it: pip install {package}"
    return None


def _path_problem(path: Path, output_dir: Path | None, for_reading: bool) -> str | None:
    is_ours = output_dir is not None and path.parent == Path(os.path.abspath(output_dir))
    problem = path_problem(path)
    if problem is not None:  # of its folder, the folder itself tells it
        return None if is_ours else f"{problem}; name another file"
    if path.is_dir():
        return f"{path} is a folder; name a file in it: {sqlite_url(path / DATABASE_NAME)}"
    if not path.parent.is_dir():
        return None if is_ours else f"the folder {path.parent} does not exist; create it or name another"
    if not for_reading and not os.access(path.parent, os.W_OK | os.X_OK):
        return f"no file can be written in {path.parent}; {way_to_write(path.parent)} or name another folder"
    return _file_problem(path, for_reading) if os.path.lexists(path) else None


def _file_problem(path: Path, for_reading: bool) -> str | None:
    if not path.is_file():
        return f"{path} is a pipe, a device or a link to nowhere; name a file"
    if not os.access(path, os.R_OK if for_reading else os.R_OK | os.W_OK):
        return f"{path} cannot be read{'' if for_reading else ' and written'}; change its rights or name another file"
    try:
        tables = _table_names(path)
    except sqlite3.OperationalError:
        # In use or failing: opening it waits for it, or tells what is wrong.
        return None
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT:
            return f"{path} is damaged; restore a copy or name another file"
        return f"{path} is not a SQLite database; name another file"
    if tables and not {"studies", "trials", "version_info"} <= tables:
        return f"{path} is a database of another program; name another file"
    return None


def _table_names(path: Path) -> set[str]:
    # Only SQLite itself may open the file: closing any other descriptor would drop the locks of this process.
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=300)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
