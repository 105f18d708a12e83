"""Where a study keeps what it knows: in a database in its folder, or in one of its own on a server.

The parent talks to no database; processes that are thrown away afterwards do so for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from harness.fixture_study import STORAGE_VARIABLE
from harness.forks import in_fork
from harness.kill_points import Storage
from harness.postgresql import PASSWORD, PostgresServer
from harness.run import HarnessError

POSTGRESQL_DRIVERS = ("psycopg", "sqlalchemy.dialects.postgresql.psycopg")
_DUMP = "study.sql"


class Databases:
    """SQLite databases, each in its study's folder: there is nothing to do for them.

    Attributes:
        storage: What they are.
    """

    storage = Storage.SQLITE

    def begin(self, name: str) -> None:
        """Make a database for the study of this name; what is started from now on works with it."""

    def settle(self) -> None:
        """Wait until nothing of the study's dead processes goes on."""

    def end(self, folder: Path) -> None:
        """Leave nothing of the study but what is in its folder."""

    def leaks(self, folder: Path) -> Iterator[str]:
        """Yield what is in a folder and must not be."""
        return iter(())

    def close(self) -> None:
        """Stop what serves them."""


class ServerDatabases(Databases):
    """PostgreSQL databases, on a server of their own."""

    storage = Storage.POSTGRESQL

    def __init__(self) -> None:
        """Start the server.

        Raises:
            HarnessError: It cannot be started.
        """
        self._name = ""
        try:
            self._server = PostgresServer()
        except (ImportError, RuntimeError) as error:
            raise HarnessError(f"no PostgreSQL server: {error}; `pip install -e '.[dev]'` brings one") from error

    def begin(self, name: str) -> None:
        """Make a database for the study of this name; what is started from now on works with it."""
        self._name = name
        os.environ[STORAGE_VARIABLE] = in_fork(self._server.create_database, name)

    def settle(self) -> None:
        """Wait until the server has noticed that the study's processes are dead."""
        in_fork(self._server.wait_until_left, self._name)

    def end(self, folder: Path) -> None:
        """Write everything that the study's database holds into its folder, and drop it."""
        (folder / _DUMP).write_bytes(self._server.dump(self._name))
        in_fork(self._server.execute, f'DROP DATABASE "{self._name}"')

    def leaks(self, folder: Path) -> Iterator[str]:
        """Yield which files in a folder tell the server's password."""
        return (f"the password is in {path}" for path in files_below(folder) if passwords_in(path))

    def close(self) -> None:
        """Stop the server."""
        self._server.close()


def passwords_found(folder: Path, said: str) -> int:
    """Return how often the server's password is in the files below a folder and in a text."""
    return sum(map(passwords_in, files_below(folder))) + said.count(PASSWORD)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def passwords_in(path: Path) -> int:
    """Return how often the server's password is in a file."""
    return path.read_bytes().count(PASSWORD.encode())
