"""A removed, damaged or replaced database is reported and not changed."""

import os
import shutil
import sqlite3
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from studies import OutputFolder
from tuner.cli.errors import problems_of

Change = Callable[[Path], None]

PAGE_BYTES = 4096
COMMANDS = [
    "status",
    "export",
    "show 0",
    "report --out report.html",
    "best --out best.yaml",
    "dashboard --port 0",
    "stop",
    "enqueue --trials 1",
    "search --trials 1",
    "worker",
    "resume",
]


def empty(database):
    database.write_bytes(b"")


def write_junk(database):
    database.write_bytes(b"no database" * 500)


def cut_off(database):
    """Truncate the file, as an interrupted copy does."""
    os.truncate(database, 3 * PAGE_BYTES)


def scramble(database):
    """Overwrite all pages but the first, which identifies a database."""
    content = database.read_bytes()
    database.write_bytes(content[:PAGE_BYTES] + b"\x7f" * (len(content) - PAGE_BYTES))


def upgrade(database):
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9.z'")
        connection.execute("UPDATE version_info SET schema_version = 99, library_version = '9.9.9'")


def replace_by_another(database):
    database.unlink()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE mine (id INTEGER)")


DAMAGES = [
    (write_junk, "is not a SQLite database"),
    (cut_off, "is damaged; restore a backup"),
    (scramble, "is damaged; restore a backup"),
    (upgrade, "no longer compatible"),
    (replace_by_another, "is a database of another program"),
]


@pytest.fixture
def refuse(cli, copy_of_the_study, working_dir, tree):
    """Change the database and call a command that changes no file; return its only error."""

    def call(change, *command):
        database = copy_of_the_study / "study.db"
        change(database)
        before = tree(copy_of_the_study)
        refused = cli.error(*command, "--output-dir", copy_of_the_study)
        assert tree(copy_of_the_study) == before
        assert not any(working_dir.iterdir())
        (error,) = [line for line in refused.splitlines() if line.startswith("error: ")]
        assert str(database) in error
        return error

    return call


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [(Path.unlink, "there is no study database"), (empty, "there is no study database"), *DAMAGES],
)
def test_damaged_missing_or_replaced_database_is_reported(change, expected, command, refuse):
    assert expected in refuse(change, *command.split())


@pytest.mark.parametrize(("change", "expected"), DAMAGES)
def test_run_does_not_recreate_a_damaged_database(change, expected, refuse, run_study):
    assert expected in refuse(change, "run", "--config", str(run_study.config))


def replace_by_its_copy(database):
    copy = database.with_name("copy.db")
    shutil.copyfile(database, copy)
    copy.rename(database)


@pytest.mark.parametrize(("change", "workers"), [(Path.unlink, 1), (Path.unlink, 2), (replace_by_its_copy, 1)])
def test_database_removed_during_training_is_reported(change, workers, write_config, tmp_path):
    endless = {"training": {"num_epochs": 100_000}, "early_stopping": {"patience": 100_000}}
    config = write_config({"one": endless, "two": endless})
    arguments = ["run", "--config", str(config), "--output-dir", "out", "--workers", str(workers)]
    with subprocess.Popen(
        [sys.executable, "-m", "tuner", *arguments], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stderr is not None
        while f"[{workers}/2]" not in next(process.stderr):  # until that many trials have started
            pass
        database = tmp_path / "out" / "study.db"
        change(database)
        errors_text = process.stderr.read()
        assert process.wait() == 2, errors_text
    errors = [line for line in errors_text.splitlines() if line.startswith("error: ")]
    assert errors
    assert all(str(database) in error for error in errors)
    assert all("the file was removed or replaced while in use; put it back" in error for error in errors)
    assert "Traceback" not in errors_text
    assert database.exists() == (change is not Path.unlink)


def test_storage_error_names_the_server_of_the_study(tmp_path):
    OutputFolder(tmp_path).claim("khmer-ocr", "postgresql+psycopg://tuner@db.example.org/khmer")
    error = OperationalError("SELECT 1", {}, Exception("connection refused"))
    options = Namespace(storage=None, output_dir=str(tmp_path))
    (problem,) = problems_of(error, options)
    assert problem.startswith("postgresql+psycopg://tuner@db.example.org/khmer: connection refused")


@pytest.mark.parametrize(
    ("right", "expected", "has_study"),
    [
        ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", "permission denied for table", False),
        ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", "or use another role", True),
        ("GRANT ALL ON ALL TABLES IN SCHEMA public TO reader", "USAGE on the sequences", False),
    ],
)
def test_read_only_database_role_is_refused_before_anything_is_created(
    right, expected, has_study, cli, write_config, working_dir, new_database, postgresql
):
    url = new_database()
    run = ["run", "--config", write_config({"one": {"training": {"num_epochs": 1}}}), "--results-file", "results.json"]
    if has_study:
        cli.ok(*run, "--output-dir", "first", "--storage", url)
        shutil.rmtree(working_dir / "first")
        (working_dir / "results.json").unlink()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as owner:
        owner.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
        owner.execute(right.encode())
    try:
        as_reader = make_url(url).set(username="reader", password="reader").render_as_string(hide_password=False)
        before = sorted(working_dir.rglob("*"))
        refused = cli(*run, "--output-dir", "out", "--storage", as_reader)
    finally:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as owner:
            owner.execute("DROP OWNED BY reader")
            owner.execute("DROP ROLE reader")
    assert refused.code == 2
    (error,) = [line for line in refused.err.splitlines() if line.startswith("error: ")]
    assert expected in error
    assert sorted(working_dir.rglob("*")) == before
    # The folder can still be used with the other role.
    cli.ok(*run, "--output-dir", "out", "--storage", url)
