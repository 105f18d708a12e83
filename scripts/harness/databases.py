"""Databases of the studies, in SQLite or on a PostgreSQL server.

Only forked child processes connect to a database, because an open connection does not survive a fork.
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


class Databases:
    """SQLite databases in the folders of the studies, or databases on a new PostgreSQL server.

    Attributes:
        storage: Database system of all studies.
    """

    def __init__(self, storage: Storage) -> None:
        """Start a PostgreSQL server if `storage` is PostgreSQL.

        Raises:
            HarnessError: The server cannot be started.
        """
        self.storage = storage
        self._name = ""
        try:
            self._server = PostgresServer() if storage is Storage.POSTGRESQL else None
        except (ImportError, RuntimeError) as error:
            remedy = "if a module is missing, run `pip install -e '.[dev]'`; otherwise correct what the error names"
            raise HarnessError(f"starting PostgreSQL failed: {error}; {remedy}") from error

    def start_study(self, name: str) -> None:
        """Create a PostgreSQL database for a study; all processes that start from now on use this database."""
        if self._server:
            self._name = name
            os.environ[STORAGE_VARIABLE] = in_fork(self._server.create_database, name)

    def wait_until_disconnected(self, pid: int) -> None:
        """Wait until the PostgreSQL server has closed the connections of an exited process."""
        if self._server:
            in_fork(self._server.wait_until_disconnected, self._name, pid)

    def end_study(self, folder: Path) -> Iterator[str]:
        """Dump and drop the study's PostgreSQL database; yield a problem for each file that contains its password.

        The dump is written to the folder of the study, so the dump is searched as well.
        """
        if self._server:
            (folder / "study.sql").write_bytes(self._server.dump(self._name))
            in_fork(self._server.execute, f'DROP DATABASE "{self._name}"')
            yield from (f"{path} contains the password" for path in _files_below(folder) if _passwords_in(path))

    def close(self) -> None:
        """Stop the PostgreSQL server, if there is one."""
        if self._server:
            self._server.close()


def passwords_found(folder: Path, output: str) -> int:
    """Count how often the server's password occurs in the files below a folder and in the harness's output."""
    return sum(map(_passwords_in, _files_below(folder))) + output.count(PASSWORD)


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _passwords_in(path: Path) -> int:
    return path.read_bytes().count(PASSWORD.encode())
