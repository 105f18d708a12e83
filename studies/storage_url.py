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

from search_spaces.errors import ConfigurationError

DATABASE_NAME = "study.db"

_POSTGRESQL_DRIVERS = {
    "postgresql": "psycopg",
    "postgresql+psycopg": "psycopg",
    "postgresql+psycopg2": "psycopg2",
}
_SQLITE_SCHEMES = ("sqlite", "sqlite+pysqlite")
_PASSWORD = re.compile(r"(?P<before>://[^:/@\s]*:)[^\s]*(?P<after>@)")
_PASSWORD_OPTION = re.compile(r"(?P<before>[?&][a-z_]*password=)[^&\s]*", re.IGNORECASE)
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


def absolute_storage_url(url: str) -> str:
    """Return the URL with a relative SQLite path made absolute, to survive a change of working folder."""
    path = sqlite_path(url)
    return url if path is None else sqlite_url(path)


def mask_password(url: str) -> str:
    """Return the URL with ``***`` for its password, for messages, logs and files; any text is accepted."""
    masked = _PASSWORD.sub(r"\g<before>***\g<after>", url)
    return _PASSWORD_OPTION.sub(r"\g<before>***", masked)


def without_password(url: str) -> str:
    """Return the URL without its password, as it may be kept in a file."""
    parsed = sqlalchemy.make_url(url)
    secrets = [name for name in parsed.query if name.casefold().endswith("password")]
    return parsed._replace(password=None).difference_update_query(secrets).render_as_string(hide_password=False)


def check_storage_url(url: str, *, output_dir: str | Path | None = None) -> None:
    """Refuse a URL that cannot hold a study; nothing is created or changed.

    Args:
        url: What the user gave, or `default_storage_url`.
        output_dir: The study's output folder: it alone may be missing still, since it is created later.

    Raises:
        ConfigurationError: If the URL is mistyped, keeps nothing (`sqlite://`), needs a driver that is not
            installed, or names a file that cannot be or is not a study database.
    """
    problem = _spelling_problem(url) or _scheme_problem(url)
    path = sqlite_path(url) if problem is None else None
    if path is not None:
        problem = _path_problem(path, Path(output_dir) if output_dir is not None else None)
    if problem is not None:
        raise ConfigurationError(f"storage URL: found {mask_password(url)!r}; {problem}")


def _spelling_problem(url: str) -> str | None:
    if re.fullmatch(r"sqlite(\+\w+)?:/*(:memory:|file:.*)?", url):
        return f"it keeps nothing once the program ends; write sqlite:///{DATABASE_NAME} to keep it in a file"
    if url.startswith("sqlite") and not re.match(r"sqlite(\+\w+)?:///", url):
        path = re.sub(r"^sqlite(\+\w+)?:?/*", "", url) or DATABASE_NAME
        return f"three slashes come before a path, a fourth begins an absolute one; write sqlite:///{path}"
    if "://" not in url:
        return f"it has no scheme; write {sqlite_url(Path(url or DATABASE_NAME))}"
    try:
        sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return f"it cannot be read as a URL; write for example sqlite:///{DATABASE_NAME}"
    return None


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
    if driver is None:
        return f"{scheme!r} is not known; write sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE"
    if importlib.util.find_spec(driver) is None:
        return f"the Python package {driver!r} is missing; install it: pip install {driver}"
    return None


def _path_problem(path: Path, output_dir: Path | None) -> str | None:
    if path.is_dir():
        return f"{path} is a folder; name a file in it: {sqlite_url(path / DATABASE_NAME)}"
    is_ours = output_dir is not None and path.parent == Path(os.path.abspath(output_dir))
    if not path.parent.is_dir():
        return None if is_ours else f"the folder {path.parent} does not exist; create it or name another"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"no file can be written in {path.parent}; change its rights or name another folder"
    return _file_problem(path) if path.exists() else None


def _file_problem(path: Path) -> str | None:
    if not os.access(path, os.R_OK | os.W_OK):
        return f"{path} cannot be read and written; change its rights or name another file"
    try:
        tables = _table_names(path)
    except sqlite3.OperationalError:
        # In use or damaged: opening it for work waits for it, or tells what is wrong.
        return None
    except sqlite3.DatabaseError:
        return f"{path} is not a SQLite database; name another file"
    if tables and not {"studies", "trials", "version_info"} <= tables:
        return f"{path} is a database of another program; name another file"
    return None


def _table_names(path: Path) -> set[str]:
    # Only SQLite itself may open the file: closing any other descriptor would drop the locks of this process.
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=300)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
