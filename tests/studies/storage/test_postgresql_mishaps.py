"""Failures of a real server, connection or role must not damage a study."""

import contextlib
import threading

import optuna
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from search_spaces import ConfigurationError
from studies import enqueue_presets, is_connection_lost, open_storage, storage_error_text
from studies.locks.advisory_locks import SECONDS_UNTIL_LOST
from studies.storage.optuna_private import rdb_storage
from studies.storage.postgresql import PostgresStorage
from studies.study import presets as presets_module
from studies.trials.claims import claim_next
from studies.trials.record import StartedAfter


def storage_of(study):
    storage = rdb_storage(study)
    assert isinstance(storage, PostgresStorage)
    return storage


def names(study):
    return [trial.user_attrs["experiment_name"] for trial in study.get_trials()]


def end_sessions(server, url, of=""):
    database = sqlalchemy.make_url(url).database
    server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE '%{of}%'"
    )


def test_trial_is_added_once_if_the_answer_to_its_commit_is_lost(start, presets, url, postgresql, monkeypatch):
    study, folder = start(url=url)
    commit = PGDialect_psycopg.do_commit

    def commit_and_lose_the_answer(dialect, connection):
        commit(dialect, connection)
        with psycopg.connect(url.replace("+psycopg", "")) as other:
            count = other.execute("SELECT count(*) FROM trials").fetchone()
        if count == (1,):
            monkeypatch.undo()
            end_sessions(postgresql, url)
            connection.execute("SELECT 1")

    monkeypatch.setattr(PGDialect_psycopg, "do_commit", commit_and_lose_the_answer)
    with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
        enqueue_presets(study, folder, presets)
    assert is_connection_lost(caught.value)
    assert len(names(study)) == 1
    enqueue_presets(study, folder, presets)
    assert names(study) == list(presets)


def test_connection_lost_while_reading_trials_is_recognised(start, presets, url, postgresql, capfd):
    study, _ = start(presets, url=url)
    engine, broken = storage_of(study).engine, []

    def end_session_once(connection, cursor, statement, *rest):
        if "FROM trials" in statement and not broken:
            broken.append(statement)
            end_sessions(postgresql, url)

    sqlalchemy.event.listen(engine, "before_cursor_execute", end_session_once)
    with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
        study.get_trials()
    assert is_connection_lost(caught.value)
    assert "terminating connection" in storage_error_text(caught.value, url)
    assert len(names(study)) == len(presets)
    assert capfd.readouterr() == ("", "")


def test_process_that_lost_the_study_lock_enqueues_nothing(start, presets, url, postgresql, monkeypatch):
    study, folder = start(url=url)
    other = start(url=url)
    enqueue = presets_module._enqueue

    def restart_and_enqueue_in_other_process(*arguments):
        monkeypatch.undo()
        postgresql.restart()
        enqueue_presets(*other, presets)
        enqueue(*arguments)

    monkeypatch.setattr(presets_module, "_enqueue", restart_and_enqueue_in_other_process)
    with pytest.raises((optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)) as caught:
        enqueue_presets(study, folder, presets)
    assert is_connection_lost(caught.value)
    assert names(study) == list(presets)
    enqueue_presets(study, folder, presets)
    assert names(study) == list(presets)


def test_role_with_its_own_schema_sees_the_same_locks(server_study, start, presets, url, postgresql, tmp_path):
    claim = claim_next(*server_study)
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        postgresql.execute("CREATE ROLE bora LOGIN SUPERUSER PASSWORD 'bora'")
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA bora AUTHORIZATION bora")
    theirs = sqlalchemy.make_url(url).set(username="bora", password="bora").render_as_string(hide_password=False)
    study, folder = start(presets, url=theirs, path=tmp_path / "theirs")
    assert claim_next(study, folder, lambda record: record.number == 0) is None
    claim.trial.report(0.5, step=1)
    claim.release()


def test_server_detects_an_unreachable_machine_on_every_connection(server_study):
    storage = storage_of(server_study[0])
    claim = claim_next(*server_study)
    connections = [storage.engine.connect(), storage.locks._connection]
    for connection in connections:
        keepalives = [
            connection.exec_driver_sql(f"SHOW tcp_keepalives_{name}").scalar() for name in ("idle", "interval")
        ]
        user_timeout = connection.exec_driver_sql("SHOW tcp_user_timeout").scalar()
        assert (keepalives, user_timeout) == (["10", "5"], str(SECONDS_UNTIL_LOST * 1000))
    connections[0].close()
    claim.release()


def test_grace_period_applies_to_a_trial_that_was_read_as_waiting(
    server_study, start, presets, url, postgresql, monkeypatch
):
    other = start(presets, url=url)
    locks = storage_of(other[0]).locks
    try_acquire = locks.try_acquire
    claims = []

    def acquire_after_other_worker(key):
        monkeypatch.undo()
        claims.append(claim_next(*server_study))
        end_sessions(postgresql, url, "advisory")
        return try_acquire(key)

    monkeypatch.setattr(locks, "try_acquire", acquire_after_other_worker)
    assert claim_next(*other, lambda record: record.number == 0) is None
    (claim,) = claims
    claim.trial.report(0.5, step=1)
    assert [attempt.after for attempt in claim.record.attempts] == [StartedAfter.WAITING]
    claim.release()


def test_claim_waits_for_a_server_that_is_down(server_study, postgresql, monkeypatch):
    locks = storage_of(server_study[0]).locks
    try_acquire, restart = locks.try_acquire, threading.Timer(2.0, postgresql.start)

    def acquire_while_server_is_down(key):
        monkeypatch.undo()
        postgresql.stop()
        restart.start()
        return try_acquire(key)

    monkeypatch.setattr(locks, "try_acquire", acquire_while_server_is_down)
    claim = claim_next(*server_study)
    restart.join()
    claim.release()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?options=-csearch_path%3Dnowhere", "create a schema that is in the role's search_path, or correct the URL"),
        ("?connect_timeout=abc", "correct the URL's options after '\\?'"),
        ("?sslpassword=hunter2&sslmode=foo", "correct the URL's options after '\\?'"),
        ("?sslmode=require", "remove sslmode from the URL, or enable SSL on the server"),
    ],
)
def test_invalid_url_options_are_reported_with_a_remedy(options, message, url):
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_storage(url + options)
    assert "hunter2" not in str(caught.value)
