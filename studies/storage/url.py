"""Functions that validate, complete and display storage URLs."""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import sqlalchemy

from search_spaces.diagnostics.disk import writable_remedy
from search_spaces.diagnostics.names import path_problem
from search_spaces.errors import ConfigurationError

DATABASE_NAME = "study.db"

_POSTGRESQL_DRIVERS = {"postgresql": "psycopg", "postgresql+psycopg": "psycopg", "postgresql+psycopg2": "psycopg2"}
_SQLITE_SCHEMES = ("sqlite", "sqlite+pysqlite")
_SCHEMES = (*_SQLITE_SCHEMES, *_POSTGRESQL_DRIVERS)
_SQLITE_PATH = re.compile(r"sqlite(\+\w+)?:///")
# The libpq options that may be displayed and stored; `SECRET_OPTIONS` are only passed to libpq.
_OPTIONS = frozenset(
    "application_name channel_binding client_encoding connect_timeout gssencmode host hostaddr keepalives "
    "keepalives_count keepalives_idle keepalives_interval load_balance_hosts options passfile port service "
    "sslcert sslcertmode sslcrl sslkey sslmode sslnegotiation sslrootcert target_session_attrs tcp_user_timeout "
    "user".split()
)
SECRET_OPTIONS = frozenset({"password", "sslpassword", "oauth_client_secret"})
# Patterns for the parts of a PostgreSQL URL: a part that does not match may contain part of a malformed password.
_URL, _HOST = r"[^/]*//([^@/?#\n]*@)?[^@\n]*", r"[\w.-]*|[\da-fA-F:.]+"
_WORD = r"\w.+ \-\x80-\U0010ffff"  # includes the combining marks of Khmer
_USER, _DATABASE = rf"[{_WORD}@]*", rf"[{_WORD}]*"
_VALUE = rf"[{_WORD}/,~]*(:\d{{1,5}})?|[\da-fA-F:.]+|-c ?search_path=[\w,]+"
# Characters with a special meaning for SQLAlchemy (percent, query), Optuna (braces) or this module.
_ESCAPES = str.maketrans({character: f"%{ord(character):02X}" for character in "%?#;{}"})
_FORMS = "sqlite:///PATH or postgresql+psycopg://USER@HOST:5432/DATABASE"


def default_storage_url(output_dir: str | Path) -> str:
    """Return the URL of the SQLite database in an output folder, with an absolute path."""
    return sqlite_url(Path(output_dir) / DATABASE_NAME)


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite database file, with an absolute path."""
    return f"sqlite:///{os.path.abspath(path).translate(_ESCAPES)}"


def sqlite_path(url: str) -> Path | None:
    """Return the absolute path of a SQLite URL's file; None if the URL is not that of a SQLite file."""
    parsed = sqlalchemy.make_url(url)
    if parsed.drivername not in _SQLITE_SCHEMES or not parsed.database:
        return None
    return Path(os.path.abspath(parsed.database))


def complete_url(url: str) -> str:
    """Return the URL with an explicit driver or, for SQLite, with an absolute path."""
    path = sqlite_path(url)
    return _with_driver(sqlalchemy.make_url(url)).render_as_string(False) if path is None else sqlite_url(path)


def mask_password(url: str) -> str:
    """Return the URL for messages, logs and files, with ``***`` in place of its secret parts.

    Any text is accepted. If the text cannot be parsed as a URL, only a known scheme is shown.
    """
    if _SQLITE_PATH.match(url):
        return re.split("[?#;]", url)[0]
    scheme = url.partition("://")[0]
    hidden = f"{scheme}://***" if scheme in _SCHEMES else "***"
    return hidden if (public := _public(url)) is None else public.render_as_string()


def without_password(url: str) -> str:
    """Return the URL without its password and secret options, for storage in a file."""
    public = _public(url)
    return mask_password(url) if public is None else _with_driver(public)._replace(password=None).render_as_string()


def has_secret(url: str) -> bool:
    """Return whether a URL that `check_storage_url` accepts contains a password or another secret option."""
    parsed = sqlalchemy.make_url(url)
    return parsed.password is not None or not SECRET_OPTIONS.isdisjoint(parsed.query)


def check_storage_url(url: str, *, output_dir: str | Path | None = None, for_reading: bool = False) -> None:
    """Check that a URL can be the storage of a study, without creating or changing anything.

    Args:
        url: The user's URL, or `default_storage_url`.
        output_dir: The study's output folder, the only folder that may be missing, because it is created later.
        for_reading: Whether a read-only database is accepted.

    Raises:
        ConfigurationError: The URL is malformed or in-memory (`sqlite://`), its driver is not installed, or its file
            cannot be a study database.
    """
    problem = _spelling_problem(url)
    path = sqlite_path(url) if problem is None else None
    if path is not None:
        problem = _path_problem(path, Path(output_dir) if output_dir is not None else None, for_reading)
    if problem is not None:
        raise ConfigurationError(f"storage URL: found {mask_password(url)!r}; {problem}")


def _with_driver(url: sqlalchemy.URL) -> sqlalchemy.URL:
    """Return the URL with an explicit driver, because SQLAlchemy's default driver is older."""
    driver = _POSTGRESQL_DRIVERS.get(url.drivername)
    return url if driver is None else url.set(drivername=f"postgresql+{driver}")


def _public(url: str) -> sqlalchemy.URL | None:
    """Return a PostgreSQL URL without secret options; None if the rest may contain part of a malformed password."""
    try:
        parsed = sqlalchemy.make_url(url)
        parsed.render_as_string(hide_password=False)  # fails for text that is not UTF-8
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return None
    parts = {_URL: url, _USER: parsed.username, _HOST: parsed.host, _DATABASE: parsed.database}
    is_plain = all(re.fullmatch(pattern, part or "") for pattern, part in parts.items())
    if parsed.drivername not in _POSTGRESQL_DRIVERS or not is_plain or (parsed.port or 0) > 65535:
        return None
    options = {name: values for name, values in parsed.normalized_query.items() if name in _OPTIONS}
    return parsed.set(query={name: v for name, v in options.items() if all(re.fullmatch(_VALUE, one) for one in v)})


def _spelling_problem(url: str) -> str | None:
    if re.fullmatch(r"sqlite(\+\w+)?:/*(:memory:|file:.*)?", url):
        return f"an in-memory database is lost when the program ends; use sqlite:///{DATABASE_NAME} for a file"
    if url.startswith("sqlite") and not _SQLITE_PATH.match(url):
        return f"expected three slashes before a path, four for an absolute path; use sqlite:///{DATABASE_NAME}"
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        return f"it does not begin with a known scheme in lower case; use {_FORMS}"
    if scheme in _SQLITE_SCHEMES:
        problem = "options after '?', '#' or ';' are not supported; remove them (in a file name, write '?' as %3F)"
        return problem if re.search("[?#;]", url) else None
    public = _public(url)
    if public is None:
        return f"it cannot be parsed; use {_FORMS}, with a percent-encoded password (%40 for '@')"
    if set(sqlalchemy.make_url(url).query) - set(public.query) - SECRET_OPTIONS:
        return f"an option after '?' is unknown or has an invalid value; use only {', '.join(sorted(_OPTIONS))}"
    driver = _POSTGRESQL_DRIVERS[scheme]
    if importlib.util.find_spec(driver) is not None:
        return None
    package = "'khmer-ocr-tuner[postgresql]'" if driver == "psycopg" else driver
    return f"the Python package {driver!r} is missing; install it: pip install {package}"


def _path_problem(path: Path, output_dir: Path | None, for_reading: bool) -> str | None:
    in_output_dir = output_dir is not None and path.parent == Path(os.path.abspath(output_dir))
    problem = path_problem(path)
    if problem is not None:  # the check of the output folder reports the same problem
        return None if in_output_dir else f"{problem}; choose another file"
    if path.is_dir():
        return f"{path} is a folder; use a file in it: {sqlite_url(path / DATABASE_NAME)}"
    if not path.parent.is_dir():
        return None if in_output_dir else f"the folder {path.parent} does not exist; create it or choose another folder"
    if not for_reading and not os.access(path.parent, os.W_OK | os.X_OK):
        return f"no file can be written in {path.parent}; {writable_remedy(path.parent)} or choose another folder"
    return _file_problem(path, for_reading) if os.path.lexists(path) else None


def _file_problem(path: Path, for_reading: bool) -> str | None:
    if not path.is_file():
        return f"{path} is a pipe, a device or a broken symbolic link; choose a regular file"
    if not os.access(path, os.R_OK if for_reading else os.R_OK | os.W_OK):
        return (
            f"{path} cannot be read{'' if for_reading else ' and written'}; "
            "change its permissions or choose another file"
        )
    try:
        tables = _table_names(path)
    except sqlite3.OperationalError:
        # In use or failing: opening the storage later waits, or reports the reason.
        return None
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT:
            return f"{path} is damaged; restore a backup or choose another file"
        return f"{path} is not a SQLite database; choose another file"
    if tables and not {"studies", "trials", "version_info"} <= tables:
        return f"{path} is a database of another program; choose another file"
    return None


def _table_names(path: Path) -> set[str]:
    # Opened by SQLite only: closing another descriptor of the file would drop this process's locks on it.
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=300)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
