"""A worker process for tests, whose objective reports a value without training.

The environment variable KHMER_TUNER_STORAGE is the storage URL; without it, the database is in the study's folder. A
process that forks opens no connection to the database; only its forks do.

work FOLDER PRESETS SEARCHES [WORKERS]: join the study, enqueue these numbers of presets and search trials, and train
    all pending trials in WORKERS processes that start at the same moment.
hold FOLDER PRESETS: join the study, claim one trial, report once and sleep.
lock FILE: lock a file, write a note into it and sleep.
lock_database FOLDER SECONDS: create a study and lock its database for SECONDS.
kill_start FOLDER PRESETS SEARCHES: for N = 1, 2, ..., start a study in a fork that is killed at its commit N, then in
    another fork; print the trials after each N.
kill_request FOLDER SEARCHES: for N = 1, 2, ..., request search trials in a fork that is killed at its commit N, then
    enqueue the rest of the budget in another fork; print the search trials after each N.
kill_workers FOLDER PRESETS SEARCHES: start one worker after the other on the study FOLDER/out, the N-th killed at its
    commit N, until one trains all trials; print their number. Another worker does the same in FOLDER/reference.
attempts FOLDER HISTORY...: create a preset for each history. For each letter of a history, a process claims the preset
    and is killed (k), is killed after a new epoch (e), or releases the trial (s).
search FOLDER SEARCHES [COMMIT]: train three presets and SEARCHES search trials; be killed at COMMIT, or print all
    trials.
"""

import functools
import json
import math
import os
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import alembic.util
import psycopg
import sqlalchemy

import studies
from search_spaces import Choices, FloatRange, IntRange, Parameter, SearchSpace, TrainingConfig
from search_spaces.files.file_locks import try_lock
from studies.storage.optuna_private import rdb_storage
from studies.study.search_budget import top_up
from studies.trials import leases
from studies.trials.claims import claim_next

STORAGE_VARIABLE = "KHMER_TUNER_STORAGE"
SPACE = SearchSpace(
    (
        Parameter("learning_rate", FloatRange(1e-4, 1e-1, log=True)),
        Parameter("scheduler_type", Choices(("cosine", "steplr"))),
        Parameter("warmup_epochs", IntRange(0, 5), when={"scheduler_type": ("cosine",)}),
    )
)
INVARIANTS = studies.StudyInvariants(
    monitor="val_char_accuracy",
    mode="max",
    seed=0,
    dataset={"fingerprint": "f00d", "train_split": "train", "val_split": "val", "metadata_path": "/data/metadata.yaml"},
    models={},
)


# Alembic loads Optuna's schema revisions whenever a database is opened; cached here and in forked children.
alembic.util.load_python_file = functools.cache(alembic.util.load_python_file)


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def disable_flushes(connection, record):
    # These tests kill processes, not machines, so SQLite need not flush to the disk.
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def open_study(path):
    folder = studies.OutputFolder(path)
    url = os.environ.get(STORAGE_VARIABLE) or studies.default_storage_url(path)
    # On a server, the studies of several folders are in one database.
    return studies.create_or_join_study(studies.open_storage(url), path.name, folder, INVARIANTS), folder


def join(path, presets, searches=0):
    study, folder = open_study(path)
    experiments = {f"preset {n:02d}": TrainingConfig(learning_rate=0.001 + n / 10_000) for n in range(presets)}
    studies.enqueue_presets(study, folder, experiments, SPACE)
    if searches:
        studies.add_search_trials(study, folder, studies.SearchRequest(at_least=searches))
    return study, folder


def train(claim, log):
    study = claim.trial.study
    search = studies.search_settings(study)
    start = (
        claim.record.training_config
        if claim.record.kind is studies.TrialKind.PRESET or search is None
        else search.start
    )
    config = studies.suggest_all(claim.trial, SPACE, start)
    claim.record_config(config)
    if not study.get_trials()[claim.record.number].intermediate_values:
        claim.trial.report(config.learning_rate, step=1)
    with log.open("a") as file:
        file.write(f"{claim.record.number} {claim.record.experiment_name}\n")
    outcome = studies.TrialOutcome(
        why_ended=studies.WhyEnded.MAX_EPOCHS,
        training_time_s=0.1,
        best_val_char_accuracy=config.learning_rate,
        best_val_seq_accuracy=0.1,
        final_train_loss=1.0,
        total_epochs=1,
        best_epoch=1,
    )
    claim.finish(outcome, config.learning_rate)


def train_pending(study, folder, log):
    while (claim := studies.claim_next_trial(study, folder)) is not None:
        train(claim, log)


def work(path, presets, searches, workers=1):
    if workers > 1:
        warm_up()
    start, signal_pipe = os.pipe()
    pids = [start_fork(work_after_signal, start, signal_pipe, path, presets, searches) for _ in range(workers)]
    os.close(signal_pipe)  # all workers start at this moment
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    sys.exit(max(statuses) != 0)


def work_after_signal(start, signal_pipe, path, presets, searches):
    os.close(signal_pipe)
    os.read(start, 1)
    study, folder = join(path, presets, searches)
    train_pending(study, folder, path / f"trained.{os.getpid()}.log")


def hold(path, presets):
    study, folder = join(path, presets)
    claim = claim_next(study, folder)
    claim.trial.report(0.5, step=1)
    print(claim.record.number, flush=True)
    time.sleep(600)


def lock(path):
    held = try_lock(path)
    if held is not None:
        held.write_note(f"note of {os.getpid()}")
    print("held" if held is not None else "busy", flush=True)
    time.sleep(600)


def lock_database(path, seconds):
    join(path, 0)
    connection = sqlite3.connect(path / "study.db", timeout=60, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    print("locked", flush=True)
    time.sleep(seconds)
    connection.execute("COMMIT")


def kill_start(path, presets, searches):
    warm_up()
    for point in range(1, 1000):
        folder = path / f"{point:03d}"
        killed = in_fork(join_until_commit, folder, presets, searches, point)
        assert in_fork(join, folder, presets, searches) == 0
        assert in_fork(print_trials, folder, killed == signal.SIGKILL) == 0
        if killed == 0:
            return
        empty_database()


def print_trials(path, killed):
    study, _ = studies.load_study(path)
    kinds = [trial.user_attrs.get("experiment_name", trial.user_attrs["kind"]) for trial in study.get_trials()]
    print_json(killed=killed, trials=kinds, states=sorted({trial.state.name for trial in study.get_trials()}))


def kill_request(path, searches):
    warm_up()
    for point in range(1, 1000):
        folder = path / f"{point:03d}"
        assert in_fork(join, folder, 1) == 0
        killed = in_fork(request_until_commit, folder, searches, point)
        assert in_fork(enqueue_rest, folder, killed == signal.SIGKILL) == 0
        if killed == 0:
            return


def request_until_commit(path, searches, point):
    study, folder = open_study(path)
    kill_at_commit(point)
    studies.add_search_trials(study, folder, studies.SearchRequest(more=searches))


def enqueue_rest(path, killed):
    budget = studies.search_budget(studies.load_study(path)[0])
    study, folder = open_study(path)
    top_up(study, folder)
    numbers = [trial.number for trial in study.get_trials() if trial.user_attrs["kind"] == studies.TrialKind.SEARCH]
    print_json(killed=killed, budget=budget, numbers=numbers, has_settings=studies.search_settings(study) is not None)


def kill_workers(path, presets, searches):
    warm_up()
    shorten_grace_periods()
    assert in_fork(work_until_commit, path / "reference", presets, searches, math.inf) == 0
    workers = 1
    while in_fork(work_until_commit, path / "out", presets, searches, workers) != 0:
        workers += 1
    print(workers)


def work_until_commit(path, presets, searches, point):
    study, folder = join(path, presets, searches)
    kill_at_commit(point)
    train_pending(study, folder, path / "trained.log")


def join_until_commit(path, presets, searches, point):
    kill_at_commit(point)
    join(path, presets, searches)


def run_histories(path, histories):
    warm_up()
    shorten_grace_periods()
    assert in_fork(join, path, len(histories)) == 0
    for number, history in enumerate(histories):
        for letter in history:
            in_fork(attempt, path, number, letter)


def attempt(path, number, letter):
    study, folder = open_study(path)
    claim = claim_next(study, folder, lambda record: record.number == number)
    if letter == "e":
        claim.trial.report(0.5, step=1 + len(study.get_trials()[number].intermediate_values))
    if letter == "s":
        claim.release()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def search(path, searches, point=math.inf):
    count_commits = kill_at_commit(point)
    study, folder = join(path, 3, searches)
    train_pending(study, folder, path / "trained.log")
    trials = [(trial.state.name, trial.params, trial.value) for trial in study.get_trials()]
    print_json(commits=count_commits(), trials=trials)


def kill_at_commit(point):
    """Kill this process at commit number `point`; return a function that returns the number of commits so far."""
    count = 0

    def counted(connection):
        nonlocal count
        count += has_written(connection.connection.driver_connection)
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", counted)
    return lambda: count


def has_written(connection):
    """Return whether a connection's transaction has written; other commits do not count."""
    if isinstance(connection, sqlite3.Connection):
        return connection.in_transaction
    return bool(connection.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetchone()[0])


def in_fork(action, *arguments):
    status = os.waitpid(start_fork(action, *arguments), 0)[1]
    wait_until_disconnected()
    return status


def start_fork(action, *arguments):
    pid = os.fork()
    if pid == 0:
        try:
            action(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def warm_up():
    """Fill the caches of SQLAlchemy and Alembic once, before the forks, since both start slowly."""
    with tempfile.TemporaryDirectory() as folder, sqlite_storage():
        study, output_folder = join(Path(folder), 1, 1)
        train_pending(study, output_folder, Path(folder) / "log")
        rdb_storage(study).engine.dispose()  # SQLite connections must not be inherited by a fork


@contextmanager
def sqlite_storage():
    """Use SQLite even if the environment variable is set."""
    url = os.environ.pop(STORAGE_VARIABLE, None)
    yield
    if url is not None:
        os.environ[STORAGE_VARIABLE] = url


def shorten_grace_periods():
    """Shorten the grace periods, since all other workers have exited here."""
    leases.LEASE_GRACE_S, leases.LEASE_GRACE_AFTER_RESTART_S = 0.5, 0.0


def wait_until_disconnected():
    """Wait until the server has closed the connections of exited processes."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    with server() as connection:
        while connection is not None and connection.execute(others).fetchone() != (0,):
            time.sleep(0.01)


def empty_database():
    with server() as connection:
        if connection is not None:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")


def server():
    """Return a connection to close before the next fork; None without a server."""
    url = os.environ.get(STORAGE_VARIABLE)
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True) if url else nullcontext()


def print_json(**data):
    print(json.dumps(data), flush=True)


def main(action, path, rest):
    if action == "attempts":
        run_histories(path, rest)
        return
    actions = {
        "work": work,
        "hold": hold,
        "lock": lock,
        "lock_database": lock_database,
        "kill_start": kill_start,
        "kill_request": kill_request,
        "kill_workers": kill_workers,
        "search": search,
    }
    actions[action](path, *map(int, rest))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
