"""What a worker process does, with an objective that only reports; started by the tests.

The study is where KHMER_TUNER_STORAGE says, or in a database file in its folder. Whoever forks has no connection to it:
only forks do.

work FOLDER PRESETS SEARCHES [WORKERS]: join the study, enqueue so many presets and search trials, work off everything;
    so many processes do it, all of them from the same moment on.
hold FOLDER PRESETS: the same, but claim one trial, report once and sit on it.
lock FILE: lock a file, leave a note in it and sit on it.
database FOLDER SECONDS: begin a study and keep its database locked for so long.
die FOLDER PRESETS SEARCHES: fork a start of a study that kills itself at its first, second, ... commit, and each time
    one that does not; print what each pair leaves.
owe FOLDER SEARCHES: fork a request for search trials that kills itself at its first, second, ... commit, and each time
    a process that only completes what the study owes; print what each pair leaves.
struggle FOLDER PRESETS SEARCHES: fork workers on the study FOLDER/out, each killing itself a commit later than the one
    before, until one gets to the end; print how many it took. One does the same work undisturbed in FOLDER/calm.
attempts FOLDER STORY...: a preset for each story, and for each of its letters, one after the other, a process that
    claims the preset and then is killed (k), is killed after a new epoch (e), or lets go of it (s).
search FOLDER SEARCHES [COMMIT]: three presets and so many search trials, killed at a commit if one is given; print what
    the study holds in the end.
"""

from __future__ import annotations

import functools
import json
import math
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import alembic.util
import optuna
import psycopg
import sqlalchemy

from search_spaces import Choices, FloatRange, IntRange, Parameter, SearchSpace, TrainingConfig
from search_spaces.files.file_locks import try_lock
from studies import (
    Claim,
    OutputFolder,
    SearchRequest,
    StudyInvariants,
    TrialKind,
    TrialOutcome,
    WhyEnded,
    add_search_trials,
    claim_next_trial,
    create_or_join_study,
    default_storage_url,
    enqueue_presets,
    load_study,
    open_storage,
    search_budget,
    search_settings,
    suggest_all,
)
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
TERMS = StudyInvariants(
    monitor="val_char_accuracy",
    mode="max",
    seed=0,
    dataset={"fingerprint": "f00d", "train_split": "train", "val_split": "val", "metadata_path": "/data/metadata.yaml"},
    models={},
)


# Alembic runs Optuna's schema revisions whenever a database is opened; here each process, with its forks, does so once.
alembic.util.load_python_file = functools.cache(alembic.util.load_python_file)


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def leave_flushing_to_the_system(connection: Any, record: object) -> None:
    # What dies in these tests are processes, not machines.
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def open_study(path: Path) -> tuple[optuna.Study, OutputFolder]:
    folder = OutputFolder(path)
    url = os.environ.get(STORAGE_VARIABLE) or default_storage_url(path)
    # On a server, several folders share a database.
    return create_or_join_study(open_storage(url), path.name, folder, TERMS), folder


def join(path: Path, presets: int, searches: int = 0) -> tuple[optuna.Study, OutputFolder]:
    study, folder = open_study(path)
    experiments = {f"preset {n:02d}": TrainingConfig(learning_rate=0.001 + n / 10_000) for n in range(presets)}
    enqueue_presets(study, folder, experiments, SPACE)
    if searches:
        add_search_trials(study, folder, SearchRequest(at_least=searches))
    return study, folder


def train(claim: Claim, log: Path) -> None:
    study = claim.trial.study
    search = search_settings(study)
    start = claim.record.training_config if claim.record.kind is TrialKind.PRESET or search is None else search.start
    config = suggest_all(claim.trial, SPACE, start)
    claim.record_config(config)
    if not study.get_trials()[claim.record.number].intermediate_values:
        claim.trial.report(config.learning_rate, step=1)
    with log.open("a") as file:
        file.write(f"{claim.record.number} {claim.record.experiment_name}\n")
    outcome = TrialOutcome(
        why_ended=WhyEnded.MAX_EPOCHS,
        training_time_s=0.1,
        best_val_char_accuracy=config.learning_rate,
        best_val_seq_accuracy=0.1,
        final_train_loss=1.0,
        total_epochs=1,
        best_epoch=1,
    )
    claim.finish(outcome, config.learning_rate)


def work_off(study: optuna.Study, folder: OutputFolder, log: Path) -> None:
    while (claim := claim_next_trial(study, folder)) is not None:
        train(claim, log)


def work(path: Path, presets: int, searches: int, workers: int = 1) -> None:
    if workers > 1:
        warm_up()
    start, go = os.pipe()
    pids = [begin_fork(work_when_told, start, go, path, presets, searches) for _ in range(workers)]
    os.close(go)  # all start at this moment
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    sys.exit(max(statuses) != 0)


def work_when_told(start: int, go: int, path: Path, presets: int, searches: int) -> None:
    os.close(go)
    os.read(start, 1)
    study, folder = join(path, presets, searches)
    work_off(study, folder, path / f"trained.{os.getpid()}.log")


def hold(path: Path, presets: int) -> None:
    study, folder = join(path, presets)
    claim = claim_next(study, folder)
    assert claim is not None
    claim.trial.report(0.5, step=1)
    print(claim.record.number, flush=True)
    time.sleep(600)


def lock(path: Path) -> None:
    held = try_lock(path)
    if held is not None:
        held.write_note(f"note of {os.getpid()}")
    print("held" if held is not None else "busy", flush=True)
    time.sleep(600)


def lock_database(path: Path, seconds: float) -> None:
    join(path, 0)
    connection = sqlite3.connect(path / "study.db", timeout=60, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    print("locked", flush=True)
    time.sleep(seconds)
    connection.execute("COMMIT")


def die_at_every_commit(path: Path, presets: int, searches: int) -> None:
    warm_up()
    for point in range(1, 1000):
        folder = path / f"{point:03d}"
        killed = in_fork(join_and_die, folder, presets, searches, point)
        assert in_fork(join, folder, presets, searches) == 0
        assert in_fork(tell_trials, folder, killed == signal.SIGKILL) == 0
        if killed == 0:
            return
        empty_database()


def tell_trials(path: Path, killed: bool) -> None:
    study, _ = load_study(path)
    kinds = [trial.user_attrs.get("experiment_name", trial.user_attrs["kind"]) for trial in study.get_trials()]
    print_json(killed=killed, trials=kinds, states=sorted({trial.state.name for trial in study.get_trials()}))


def owe_after_every_commit(path: Path, searches: int) -> None:
    warm_up()
    for point in range(1, 1000):
        folder = path / f"{point:03d}"
        assert in_fork(join, folder, 1) == 0
        killed = in_fork(ask_and_die, folder, searches, point)
        assert in_fork(complete, folder, killed == signal.SIGKILL) == 0
        if killed == 0:
            return


def ask_and_die(path: Path, searches: int, point: int) -> None:
    study, folder = open_study(path)
    die_at_commit(point)
    add_search_trials(study, folder, SearchRequest(more=searches))


def complete(path: Path, killed: bool) -> None:
    promised = search_budget(load_study(path)[0])
    study, folder = open_study(path)
    top_up(study, folder)
    numbers = [trial.number for trial in study.get_trials() if trial.user_attrs["kind"] == TrialKind.SEARCH]
    print_json(killed=killed, promised=promised, numbers=numbers, settled=search_settings(study) is not None)


def struggle(path: Path, presets: int, searches: int) -> None:
    warm_up()
    nobody_comes_back()
    assert in_fork(work_and_die, path / "calm", presets, searches, math.inf) == 0
    workers = 1
    while in_fork(work_and_die, path / "out", presets, searches, workers) != 0:
        workers += 1
    print(workers)


def work_and_die(path: Path, presets: int, searches: int, point: float) -> None:
    study, folder = join(path, presets, searches)
    die_at_commit(point)
    work_off(study, folder, path / "trained.log")


def join_and_die(path: Path, presets: int, searches: int, point: int) -> None:
    die_at_commit(point)
    join(path, presets, searches)


def tell(path: Path, stories: list[str]) -> None:
    warm_up()
    nobody_comes_back()
    assert in_fork(join, path, len(stories)) == 0
    for number, story in enumerate(stories):
        for letter in story:
            in_fork(attempt, path, number, letter)


def attempt(path: Path, number: int, letter: str) -> None:
    study, folder = open_study(path)
    claim = claim_next(study, folder, lambda record: record.number == number)
    assert claim is not None
    if letter == "e":
        claim.trial.report(0.5, step=1 + len(study.get_trials()[number].intermediate_values))
    if letter == "s":
        claim.release()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def search(path: Path, searches: int, point: float = math.inf) -> None:
    commits = die_at_commit(point)
    study, folder = join(path, 3, searches)
    work_off(study, folder, path / "trained.log")
    trials = [(trial.state.name, trial.params, trial.value) for trial in study.get_trials()]
    print_json(commits=commits(), trials=trials)


def die_at_commit(point: float) -> Callable[[], int]:
    """Arrange for this process to be killed by its so-manieth commit; return what counts them."""
    count = 0

    def counted(connection: sqlalchemy.Connection) -> None:
        nonlocal count
        count += has_written(connection.connection.driver_connection)
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", counted)
    return lambda: count


def has_written(connection: Any) -> bool:
    """Return whether a connection's transaction has written: what was only read leaves nothing to lose."""
    if isinstance(connection, sqlite3.Connection):
        return connection.in_transaction
    return bool(connection.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetchone()[0])


def in_fork(action: Callable[..., object], *arguments: object) -> int:
    status = os.waitpid(begin_fork(action, *arguments), 0)[1]
    wait_until_left()
    return status


def begin_fork(action: Callable[..., object], *arguments: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            action(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def warm_up() -> None:
    """Let this process learn once what each of its forks would have to: SQLAlchemy and Alembic begin slowly."""
    with tempfile.TemporaryDirectory() as folder, in_files():
        study, place = join(Path(folder), 1, 1)
        work_off(study, place, Path(folder) / "log")
        rdb_storage(study).engine.dispose()  # SQLite's connections must not be taken into a fork


@contextmanager
def in_files() -> Iterator[None]:
    """Keep studies in files, whatever is asked for."""
    url = os.environ.pop(STORAGE_VARIABLE, None)
    yield
    if url is not None:
        os.environ[STORAGE_VARIABLE] = url


def nobody_comes_back() -> None:
    """Do not wait for the live workers that may have lost their locks: here all others are dead."""
    leases.LEASE_GRACE_S, leases.LEASE_GRACE_AFTER_RESTART_S = 0.5, 0.0


def wait_until_left() -> None:
    """Wait until the server has noticed that whoever worked in its database is dead."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    with server() as connection:
        while connection is not None and connection.execute(others).fetchone() != (0,):
            time.sleep(0.01)


def empty_database() -> None:
    with server() as connection:
        if connection is not None:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")


def server() -> AbstractContextManager[psycopg.Connection | None]:
    """Return a connection that is gone before the next fork; None if the studies are in files."""
    url = os.environ.get(STORAGE_VARIABLE)
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True) if url else nullcontext()


def print_json(**data: object) -> None:
    print(json.dumps(data), flush=True)


def main(action: str, path: Path, rest: list[str]) -> None:
    if action == "attempts":
        tell(path, rest)
        return
    actions: dict[str, Callable[..., None]] = {
        "work": work,
        "hold": hold,
        "lock": lock,
        "database": lock_database,
        "die": die_at_every_commit,
        "owe": owe_after_every_commit,
        "struggle": struggle,
        "search": search,
    }
    actions[action](path, *map(int, rest))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
