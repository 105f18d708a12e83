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

from search_spaces.diagnostics.disk_errors import how_to_make_writable
from search_spaces.diagnostics.names import path_problem
from search_spaces.errors import ConfigurationError

DATABASE_NAME = "study.db"

_POSTGRESQL_DRIVERS = {"postgresql": "psycopg", "postgresql+psycopg": "psycopg", "postgresql+psycopg2": "psycopg2"}
_SQLITE_SCHEMES = ("sqlite", "sqlite+pysqlite")
_SCHEMES = (*_SQLITE_SCHEMES, *_POSTGRESQL_DRIVERS)
_SQLITE_PATH = re.compile(r"sqlite(\+\w+)?:///")
# Options of libpq that may be shown and kept, and those that are passed on only.
_OPTIONS = frozenset(
    "application_name channel_binding client_encoding connect_timeout gssencmode host hostaddr keepalives "
    "keepalives_count keepalives_idle keepalives_interval load_balance_hosts options passfile port service "
    "sslcert sslcertmode sslcrl sslkey sslmode sslnegotiation sslrootcert target_session_attrs tcp_user_timeout "
    "user".split()
)
SECRET_OPTIONS = frozenset({"password", "sslpassword", "oauth_client_secret"})
# A part of a PostgreSQL URL with any other character may contain a piece of a mistyped password.
_URL, _HOST = r"[^/]*//([^@/?#\n]*@)?[^@\n]*", r"[\w.-]*|[\da-fA-F:.]+"
_WORD = r"\w.+ \-\x80-\U0010ffff"  # letters with the marks that Khmer needs
_USER, _DATABASE = rf"[{_WORD}@]*", rf"[{_WORD}]*"
_VALUE = rf"[{_WORD}/,~]*(:\d{{1,5}})?|[\da-fA-F:.]+|-c ?search_path=[\w,]+"
# What SQLAlchemy (percent, query), Optuna (braces) and we would read as something else than a part of a path.
_ESCAPES = str.maketrans({character: f"%{ord(character):02X}" for character in "%?#;{}"})
_FORMS = "sqlite:///PATH or postgresql+psycopg://USER@HOST:5432/DATABASE"


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
    """Return the parts of a URL that may be shown in messages, logs and files, with ``***`` for the others.

    Any text is accepted. Of a URL that cannot be read, only its scheme is shown, if that is a known one.
    """
    if _SQLITE_PATH.match(url):
        return re.split("[?#;]", url)[0]
    scheme = url.partition("://")[0]
    hidden = f"{scheme}://***" if scheme in _SCHEMES else "***"
    return hidden if (public := _public(url)) is None else public.render_as_string()


def without_password(url: str) -> str:
    """Return the URL without its password and secret options, as it may be kept in a file."""
    public = _public(url)
    return mask_password(url) if public is None else _with_driver(public)._replace(password=None).render_as_string()


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
    problem = _spelling_problem(url)
    path = sqlite_path(url) if problem is None else None
    if path is not None:
        problem = _path_problem(path, Path(output_dir) if output_dir is not None else None, for_reading)
    if problem is not None:
        raise ConfigurationError(f"storage URL: found {mask_password(url)!r}; {problem}")


def _with_driver(url: sqlalchemy.URL) -> sqlalchemy.URL:
    """Return a URL that names its driver: SQLAlchemy's own default is an older one."""
    driver = _POSTGRESQL_DRIVERS.get(url.drivername)
    return url if driver is None else url.set(drivername=f"postgresql+{driver}")


def _public(url: str) -> sqlalchemy.URL | None:
    """Return a PostgreSQL URL without secret options, or None if a part may be a piece of a mistyped password."""
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
        return f"it keeps nothing once the program ends; write sqlite:///{DATABASE_NAME} to keep it in a file"
    if url.startswith("sqlite") and not _SQLITE_PATH.match(url):
        return f"three slashes come before a path, a fourth begins an absolute one; write sqlite:///{DATABASE_NAME}"
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        return f"it does not begin with a known scheme in lower case; write {_FORMS}"
    if scheme in _SQLITE_SCHEMES:
        problem = "options after '?', '#' or ';' are refused; leave them out ('?' in a name is %3F)"
        return problem if re.search("[?#;]", url) else None
    public = _public(url)
    if public is None:
        return f"it cannot be parsed; write {_FORMS}, with a percent-encoded password (%40 for '@')"
    if set(sqlalchemy.make_url(url).query) - set(public.query) - SECRET_OPTIONS:
        return f"an option after '?' is unknown or has an unexpected value; use only {', '.join(sorted(_OPTIONS))}"
    driver = _POSTGRESQL_DRIVERS[scheme]
    if importlib.util.find_spec(driver) is not None:
        return None
    package = "'khmer-ocr-tuner[postgresql]'" if driver == "psycopg" else driver
    return f"the Python package {driver!r} is missing; install it: pip install {package}"


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
        return f"no file can be written in {path.parent}; {how_to_make_writable(path.parent)} or name another folder"
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
