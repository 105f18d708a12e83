"""A study on a real PostgreSQL server: restarts, lost connections, and the takeover of trials of running workers."""

import threading
import time
from collections.abc import Callable

import optuna
import psycopg
import pytest
import sqlalchemy
from optuna.trial import TrialState

from search_spaces import ConfigurationError
from studies import (
    Claim,
    LeaseLost,
    RowState,
    find_study,
    is_connection_lost,
    load_study,
    open_storage,
    study_status,
    url_with_password,
)
from studies.storage.open import open_storage_for_reading
from studies.storage.optuna_private import rdb_storage
from studies.storage.postgresql import PostgresStorage
from studies.storage.url import without_password
from studies.trials.claims import claim_next
from studies.trials.leases import LEASE_GRACE_S
from studies.trials.record import StartedAfter


def storage_of(study):
    storage = rdb_storage(study)
    assert isinstance(storage, PostgresStorage)
    return storage


def claimed(study, folder):
    claim = claim_next(study, folder)
    assert claim is not None
    return claim


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def taken_over(server_study, start, presets, url):
    """Return an expired claim, and the claim of the worker that took over its trial."""
    stale = claimed(*server_study)
    stale.trial.report(0.5, step=1)
    # As after a network failure: the server has ended the session, which this worker has not detected yet.
    storage_of(server_study[0]).locks.close()
    fresh = claimed(*start(presets, url=url))
    assert fresh.record.number == stale.record.number
    return stale, fresh


def test_url_without_a_driver_is_the_same_storage(start, presets, url):
    study, folder = start(presets, url=url)
    owner = folder.owner()
    again, _ = start(presets, url=url.replace("+psycopg", ""))
    assert len(again.get_trials()) == len(study.get_trials()) == 3
    assert folder.owner() == owner is not None


def test_password_is_not_stored(server_study, postgresql):
    claimed(*server_study).release()
    secret = sqlalchemy.make_url(postgresql.url()).password
    for path in server_study[1].path.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    with storage_of(server_study[0]).engine.connect() as connection:
        for table in sqlalchemy.inspect(connection).get_table_names():
            rows = connection.execute(sqlalchemy.text(f'SELECT * FROM "{table}"')).all()
            assert secret not in str(rows)
        assert secret not in str(connection.exec_driver_sql("SELECT * FROM pg_stat_activity").all())


@pytest.mark.parametrize("secrets", ["", "?password={password}", "?sslpassword=other", "in front"])
def test_url_for_other_machines_has_the_password_that_this_process_uses(secrets, start, presets, url, monkeypatch):
    made = sqlalchemy.make_url(url)
    public = made._replace(password=None).render_as_string()
    given = url if secrets == "in front" else public + secrets.format(password=made.password)
    study, _ = start(presets, url=given)  # without a password, libpq finds the one in PGPASSWORD
    passed_on = url_with_password(study, given)
    assert without_password(passed_on) == without_password(given)
    monkeypatch.delenv("PGPASSWORD")
    storage = open_storage_for_reading(passed_on)
    assert len(optuna.load_study(study_name="khmer-ocr", storage=storage).get_trials()) == 3
    if secrets != "in front" and "?password" not in secrets:
        with pytest.raises(ConfigurationError, match="no password supplied"):
            open_storage_for_reading(given)


def test_reader_cannot_write(server_study, url):
    reader = optuna.load_study(study_name="khmer-ocr", storage=open_storage_for_reading(url))
    with pytest.raises(optuna.exceptions.StorageInternalError):
        reader.set_user_attr("mine", 1)
    assert "mine" not in server_study[0].user_attrs


def test_reading_a_missing_database_creates_nothing(postgresql):
    url = postgresql.create_database("bare")
    message = r"\*\*\*@.*/bare: relation .* does not exist; this database contains no study; `khmer-tuner run` creates"
    with pytest.raises(ConfigurationError, match=message):
        open_storage_for_reading(url)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


@pytest.mark.parametrize("opening", [open_storage, open_storage_for_reading])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"port": 1}, "Connection refused.*; no server listens at this address; start the server or correct the URL"),
        ({"password": "secret"}, "password authentication failed.*; put the correct password in ~/.pgpass"),
        ({"database": "missing"}, '"missing" does not exist; create it on the server .* or correct the URL'),
    ],
)
def test_unusable_server_is_reported_at_once_with_a_remedy(change, message, opening, postgresql):
    started = time.monotonic()
    url = sqlalchemy.make_url(postgresql.url("postgres")).set(**change)
    with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1.*{message}") as caught:
        opening(url.render_as_string(hide_password=False))
    assert time.monotonic() - started < 60
    assert str(url.password) not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def short_grace_period(monkeypatch):
    """Shorten the grace period, since no worker reacquires its lease in these tests."""
    monkeypatch.setattr("studies.trials.leases.LEASE_GRACE_S", 0.5)
    monkeypatch.setattr("studies.trials.leases.LEASE_GRACE_AFTER_RESTART_S", 0.0)


@pytest.mark.usefixtures("short_grace_period")
class TestFence:
    WRITES: tuple[Callable[[Claim], object], ...] = (
        lambda claim: claim.trial.report(0.75, step=2),
        lambda claim: claim.trial.suggest_int("batch_size", 16, 128, step=16),
        lambda claim: claim.trial.set_user_attr("mine", 1),
        lambda claim: claim.trial.storage.set_trial_system_attr(claim.trial._trial_id, "mine", 1),
        lambda claim: claim.trial.study.tell(claim.trial, 0.75),
        lambda claim: claim.check(),
    )

    @pytest.mark.parametrize("write", WRITES)
    def test_worker_cannot_write_after_a_takeover(self, write, server_study, start, presets, url, outcome):
        stale, fresh = taken_over(server_study, start, presets, url)
        before = fresh.trial.study.get_trials()[0]
        with pytest.raises(LeaseLost):
            write(stale)
        stale.release()
        assert fresh.trial.study.get_trials()[0] == before
        write(fresh)
        if fresh.trial.study.get_trials()[0].state == TrialState.RUNNING:
            fresh.finish(outcome, 0.9)
        ended = fresh.trial.study.get_trials()[0]
        assert (ended.state, len(ended.user_attrs["attempts"])) == (TrialState.COMPLETE, 2)

    @pytest.fixture
    def concurrent_claims(self, server_study, start, presets, url, monkeypatch):
        """Let another worker try to take over between the next check of the fence and the write that follows it."""
        storage, other = storage_of(server_study[0]), start(presets, url=url)
        claims = []
        other_worker = threading.Thread(target=lambda: claims.append(claimed(*other)))
        guard = storage._guard

        def guard_and_start_other_worker(trial_id):
            monkeypatch.undo()
            storage.locks.close()
            guard(trial_id)
            other_worker.start()
            other_worker.join(2)
            assert other_worker.is_alive(), "it does not wait for the transaction"

        monkeypatch.setattr(storage, "_guard", guard_and_start_other_worker)
        yield claims
        other_worker.join(30)

    def test_write_in_progress_is_committed_before_the_takeover(self, server_study, concurrent_claims):
        stale = claimed(*server_study)
        stale.trial.report(0.5, step=1)
        wait_until(lambda: bool(concurrent_claims))
        assert concurrent_claims[0].record.number == 0
        with pytest.raises(LeaseLost):
            stale.trial.report(0.6, step=2)
        assert server_study[0].get_trials()[0].intermediate_values == {1: 0.5}

    def test_trial_that_ends_at_the_same_time_is_not_taken_over(self, server_study, concurrent_claims):
        stale = claimed(*server_study)
        server_study[0].tell(stale.trial, 0.9)
        wait_until(lambda: bool(concurrent_claims))
        assert concurrent_claims[0].record.number == 1
        ended = server_study[0].get_trials()[0]
        assert (ended.state, ended.value, len(ended.user_attrs["attempts"])) == (TrialState.COMPLETE, 0.9, 1)


class TestLeases:
    def test_released_trial_is_claimed_at_once_and_does_not_count_as_crashed(self, server_study, start, presets, url):
        claimed(*server_study).release()
        started = time.monotonic()
        second = claimed(*start(presets, url=url))
        assert time.monotonic() - started < LEASE_GRACE_S
        assert [attempt.after for attempt in second.record.attempts] == [StartedAfter.WAITING, StartedAfter.STOP]

    def test_no_grace_period_for_a_trial_that_has_just_ended(
        self, server_study, start, presets, url, outcome, monkeypatch
    ):
        first, other = claimed(*server_study), start(presets, url=url)
        storage = storage_of(other[0])
        held_numbers = storage.held_numbers

        def finish_first(kind):
            first.finish(outcome, 0.9)
            monkeypatch.undo()
            return held_numbers(kind)

        monkeypatch.setattr(storage, "held_numbers", finish_first)
        started = time.monotonic()
        assert claimed(*other).record.number == 1
        assert time.monotonic() - started < LEASE_GRACE_S

    def test_release_while_the_server_is_down_does_not_count_as_a_crash(
        self, server_study, start, presets, url, postgresql
    ):
        for _ in range(3):
            claim = claimed(*server_study)
            postgresql.stop()
            claim.release()
            postgresql.start()
        claim = claimed(*server_study)
        assert [attempt.after for attempt in claim.record.attempts] == [StartedAfter.WAITING, *3 * [StartedAfter.STOP]]
        assert not claim.crashed
        claim.release()
        assert claimed(*start(presets, url=url)).record.attempts[-1].after is StartedAfter.STOP

    @pytest.mark.slow
    def test_lost_lease_counts_as_a_crash(self, server_study, start, presets, url):
        _, fresh = taken_over(server_study, start, presets, url)
        assert [attempt.after for attempt in fresh.record.attempts] == [StartedAfter.WAITING, StartedAfter.CRASH]

    def test_running_worker_reacquires_its_lease_after_a_lost_connection(
        self, server_study, start, presets, url, postgresql
    ):
        claim = claimed(*server_study)
        other, folder = start(presets, url=url)
        for _ in range(3):
            database = sqlalchemy.make_url(url).database
            statement = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
            postgresql.execute(statement)
            second = claim_next(other, folder, lambda record: record.number == 0)
            assert second is None, "a running worker lost its trial"
            claim.check()
        assert study_status(other, folder).rows[0].state is RowState.RUNNING

    def test_workers_continue_after_a_server_restart(self, server_study, start, presets, url, postgresql):
        claim = claimed(*server_study)
        other, folder = start(presets, url=url)
        claim.trial.report(0.5, step=1)
        postgresql.restart()
        assert claim_next(other, folder, lambda record: record.number == 0) is None
        claim.trial.report(0.6, step=2)
        assert other.get_trials()[0].intermediate_values == {1: 0.5, 2: 0.6}

    def test_worker_waits_while_the_server_is_down(self, server_study, postgresql):
        claim = claimed(*server_study)
        postgresql.stop()
        restart = threading.Timer(3.0, postgresql.start)
        restart.start()
        claim.trial.report(0.5, step=1)
        restart.join()
        assert server_study[0].get_trials()[0].intermediate_values == {1: 0.5}

    def test_release_does_not_wait_for_a_server_that_is_down(self, server_study, postgresql):
        claim = claimed(*server_study)
        postgresql.stop()
        try:
            started = time.monotonic()
            claim.release()
            assert time.monotonic() - started < 10
        finally:
            postgresql.start()


def test_lost_connection_is_recognised(server_study, postgresql):
    storage = storage_of(server_study[0])
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        postgresql.restart()
        with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
            connection.exec_driver_sql("SELECT 1")
    assert is_connection_lost(caught.value)
    assert not is_connection_lost(ValueError())
    assert len(server_study[0].get_trials()) == 3


def test_process_opens_few_connections(server_study, url):
    study, folder = server_study
    claim = claimed(study, folder)
    threads = [threading.Thread(target=lambda: study.get_trials()) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database = sqlalchemy.make_url(url).database
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        count = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [database]).fetchone()
    claim.release()
    assert count[0] - 1 <= 4


class TestFoldersOfOtherMachines:
    def test_study_is_loaded_by_storage_url_from_a_missing_folder(self, server_study, url, tmp_path):
        study, folder = load_study(tmp_path / "other", storage_url=url)
        assert len(study.get_trials()) == 3
        assert not folder.path.exists()

    def test_storage_without_the_study_is_refused_with_the_study_name(self, server_study, url, tmp_path):
        with pytest.raises(ConfigurationError, match="the study 'other' has not started yet") as caught:
            load_study(tmp_path / "other", storage_url=url, name="other")
        assert "***" in str(caught.value)
        assert not (tmp_path / "other").exists()

    def test_several_folders_train_one_study(self, start, presets, url, tmp_path, outcome):
        studies = [start(presets, url=url, path=tmp_path / name) for name in ("one", "two")]
        claims = [claimed(*item) for item in studies]
        assert [claim.record.number for claim in claims] == [0, 1]
        for claim in claims:
            claim.finish(outcome, 0.9)
        assert [find_study(folder.path)[0].study for _, folder in studies] == ["khmer-ocr"] * 2
