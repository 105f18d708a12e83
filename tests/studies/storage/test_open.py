import os
import sqlite3
import stat
import threading
import time
from contextlib import closing

import optuna
import pytest
from optuna.exceptions import StorageInternalError

from search_spaces import ConfigurationError
from studies import default_storage_url, open_storage, storage_error_text
from studies.storage.open import open_storage_for_reading


def test_sqlite_uses_a_rollback_journal(tmp_path):
    open_storage(default_storage_url(tmp_path))
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_unfinished_database_of_a_killed_process_is_replaced(tmp_path):
    (tmp_path / ".study").mkdir()
    (tmp_path / ".study" / "unfinished.db").write_bytes(b"half a page")
    (tmp_path / "study.db").touch()
    storage = open_storage(default_storage_url(tmp_path))
    assert storage.get_all_studies() == []
    assert os.listdir(tmp_path / ".study") == ["database.lock"]


@pytest.mark.parametrize("content", [None, b""])
def test_reading_a_missing_database_creates_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / "study.db").write_bytes(content)
    before = os.listdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"study.db: there is no study database; `khmer-tuner run`"):
        open_storage_for_reading(default_storage_url(tmp_path))
    assert os.listdir(tmp_path) == before


def test_reader_cannot_write(tmp_path):
    open_storage(default_storage_url(tmp_path))
    reader = open_storage_for_reading(default_storage_url(tmp_path))
    with pytest.raises(StorageInternalError) as caught:
        optuna.create_study(storage=reader, study_name="x")
    assert "make the file and its folder writable" in storage_error_text(caught.value, default_storage_url(tmp_path))


def test_writer_waits_for_a_locked_database(tmp_path):
    storage = open_storage(default_storage_url(tmp_path))
    locker = sqlite3.connect(tmp_path / "study.db", isolation_level=None, check_same_thread=False)
    locker.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.5, lambda: locker.execute("COMMIT"))
    timer.start()
    started = time.monotonic()
    optuna.create_study(storage=storage, study_name="x")
    assert time.monotonic() - started > 0.3
    timer.join()
    locker.close()


@pytest.mark.parametrize("opening", [open_storage, open_storage_for_reading])
def test_readers_and_writers_wait_for_five_minutes(opening, tmp_path):
    open_storage(default_storage_url(tmp_path))
    with opening(default_storage_url(tmp_path)).engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 300_000


def test_message_about_a_locked_database_has_a_remedy(tmp_path):
    url = default_storage_url(tmp_path)
    storage = open_storage(url, busy_timeout_s=0.1)
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageInternalError) as caught:
            optuna.create_study(storage=storage, study_name="x")
        text = storage_error_text(caught.value, url)
        assert text.startswith(f"{tmp_path}/study.db: database is locked; let the process that holds the lock continue")
        with pytest.raises(ConfigurationError, match="database is locked; let the process"):
            open_storage_for_reading(url, busy_timeout_s=0.1)


def test_database_of_another_optuna_version_is_refused(tmp_path):
    open_storage(default_storage_url(tmp_path))
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9.z'")
    with pytest.raises(ConfigurationError, match="no longer compatible with the table schema"):
        open_storage(default_storage_url(tmp_path))


def test_damaged_database_is_refused(tmp_path):
    (tmp_path / "study.db").write_bytes(b"SQLite format 3\0" + b"\x7f" * 5000)
    with pytest.raises(ConfigurationError, match="the file is damaged; restore a backup"):
        open_storage(default_storage_url(tmp_path))


def test_optuna_is_silent(tmp_path, capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    study = optuna.create_study(storage=open_storage(default_storage_url(tmp_path)), study_name="x")
    study.enqueue_trial({})
    study.tell(study.ask(), 1.0)
    assert capfd.readouterr() == ("", "")


def test_interrupted_statement_logs_no_traceback(tmp_path, caplog):
    def interrupt(text):
        raise KeyboardInterrupt

    with open_storage(default_storage_url(tmp_path)).engine.connect() as connection:
        connection.connection.driver_connection.text_factory = interrupt
        rows = connection.exec_driver_sql("SELECT name FROM sqlite_master")
        with pytest.raises(KeyboardInterrupt):
            rows.fetchall()
        rows.close()  # as at the end of a query
    assert caplog.records == []


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_database_permissions_follow_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        storage = open_storage(default_storage_url(tmp_path))
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("UPDATE version_info SET schema_version = schema_version + 1")
            journal = (tmp_path / "study.db-journal").stat().st_mode
        modes = [path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        os.umask(before)
    assert {stat.filemode(mode) for mode in [journal, *modes]} == {stat.filemode(stat.S_IFREG | 0o666 & ~umask)}
