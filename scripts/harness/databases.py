"""The databases of studies; only forked processes connect to them, never the harness itself."""

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


class Databases:
    """SQLite databases in the folders of the studies, or databases on a new PostgreSQL server.

    Attributes:
        storage: Their kind.
    """

    def __init__(self, storage: Storage) -> None:
        """Start the PostgreSQL server if the storage needs it.

        Raises:
            HarnessError: The server cannot be started.
        """
        self.storage = storage
        self._name = ""
        try:
            self._server = PostgresServer() if storage is Storage.POSTGRESQL else None
        except (ImportError, RuntimeError) as error:
            raise HarnessError(f"cannot start PostgreSQL: {error}; `pip install -e '.[dev]'` installs it") from error

    def start_study(self, name: str) -> None:
        """Create a database for the study of this name, which processes started from now on use."""
        if self._server:
            self._name = name
            os.environ[STORAGE_VARIABLE] = in_fork(self._server.create_database, name)

    def wait_until_disconnected(self) -> None:
        """Wait until the server has noticed that the processes of the study have exited."""
        if self._server:
            in_fork(self._server.wait_until_disconnected, self._name)

    def end_study(self, folder: Path) -> Iterator[str]:
        """Dump the study's database into its folder and drop it; yield a problem for each file with the password."""
        if self._server:
            (folder / "study.sql").write_bytes(self._server.dump(self._name))
            in_fork(self._server.execute, f'DROP DATABASE "{self._name}"')
            yield from (f"the password is in {path}" for path in _files_below(folder) if _passwords_in(path))

    def close(self) -> None:
        """Stop the server."""
        if self._server:
            self._server.close()


def passwords_found(folder: Path, output: str) -> int:
    """Count how often the server's password occurs in the files below a folder and in an output."""
    return sum(map(_passwords_in, _files_below(folder))) + output.count(PASSWORD)


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _passwords_in(path: Path) -> int:
    return path.read_bytes().count(PASSWORD.encode())
