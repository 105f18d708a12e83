"""What a worker process does, with an objective that only reports; started by the tests.

work FOLDER COUNT [GATE]: join the study, enqueue COUNT presets, work off everything; wait for the file GATE
    first, so that many start at the same moment.
hold FOLDER COUNT: the same, but claim one trial, report once and sit on it.
lock FILE: lock a file and sit on it.
database FOLDER SECONDS: keep the database locked for so long.
die FOLDER COUNT: fork a start of a study that kills itself at its first, second, ... commit, and each time
    one that does not; print what each pair leaves.
struggle FOLDER COUNT: fork workers on one study, each killing itself a commit later than the one before,
    until one gets to the end; print how many it took.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import sqlalchemy

from search_spaces import FloatRange, Parameter, SearchSpace, TrainingConfig
from studies import (
    Claim,
    OutputFolder,
    StudyTerms,
    TrialOutcome,
    WhyEnded,
    claim_next,
    create_or_join_study,
    default_storage_url,
    enqueue_presets,
    load_study,
    open_storage,
    suggest_all,
)
from studies.file_locks import try_lock

SPACE = SearchSpace((Parameter("learning_rate", FloatRange(1e-4, 1e-1, log=True)),))
TERMS = StudyTerms(
    monitor="val_char_accuracy",
    mode="max",
    seed=0,
    dataset={"fingerprint": "f"},
    models={},
)


def join(path: Path, count: int) -> tuple[optuna.Study, OutputFolder]:
    folder = OutputFolder(path)
    study = create_or_join_study(open_storage(default_storage_url(path)), "khmer-ocr", folder, TERMS)
    experiments = {f"preset {n:02d}": TrainingConfig(learning_rate=0.001 + n / 10_000) for n in range(count)}
    enqueue_presets(study, folder, experiments, SPACE)
    return study, folder


def train(claim: Claim, log: Path) -> None:
    config = suggest_all(claim.trial, SPACE, claim.record.training_config)
    if not claim.trial.study.get_trials()[claim.record.number].intermediate_values:
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


def work(path: Path, count: int, gate: Path | None) -> None:
    print("ready", flush=True)
    while gate is not None and not gate.exists():
        time.sleep(0.01)
    study, folder = join(path, count)
    while (claim := claim_next(study, folder)) is not None:
        train(claim, path / f"trained.{os.getpid()}.log")


def hold(path: Path, count: int) -> None:
    study, folder = join(path, count)
    claim = claim_next(study, folder)
    assert claim is not None
    claim.trial.report(0.5, step=1)
    print(claim.record.number, flush=True)
    time.sleep(600)


def lock(path: Path) -> None:
    held = try_lock(path)
    print("held" if held is not None else "busy", flush=True)
    time.sleep(600)


def lock_database(path: Path, seconds: float) -> None:
    connection = sqlite3.connect(path / "study.db", timeout=60, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    print("locked", flush=True)
    time.sleep(seconds)
    connection.execute("COMMIT")


def die_at_every_commit(path: Path, count: int) -> None:
    for point in range(1, 1000):
        folder = path / f"{point:03d}"
        killed = in_fork(join_and_die, folder, count, point)
        assert in_fork(join, folder, count) == 0
        study, _ = load_study(folder)
        names = [trial.user_attrs["experiment_name"] for trial in study.get_trials()]
        states = {trial.state.name for trial in study.get_trials()}
        print(
            json.dumps({"point": point, "killed": killed == 9, "names": names, "states": sorted(states)}),
            flush=True,
        )
        if killed == 0:
            return


def struggle(path: Path, count: int) -> None:
    join(path, count)
    workers = 1
    while in_fork(work_and_die, path, count, workers) != 0:
        workers += 1
    print(workers)


def work_and_die(path: Path, count: int, point: int) -> None:
    study, folder = join(path, count)
    die_at_commit(point)
    while (claim := claim_next(study, folder)) is not None:
        train(claim, path / "trained.log")


def join_and_die(path: Path, count: int, point: int) -> None:
    die_at_commit(point)
    join(path, count)


def die_at_commit(point: int) -> None:
    left = [point]

    def countdown(connection: sqlalchemy.Connection) -> None:
        # What was only read leaves nothing to lose.
        driver = connection.connection.driver_connection
        left[0] -= driver is not None and driver.in_transaction
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", countdown)


def in_fork(action: Callable[..., object], *arguments: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            action(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def main(action: str, path: Path, rest: list[str]) -> None:
    if action == "work":
        work(path, int(rest[0]), Path(rest[1]) if len(rest) > 1 else None)
    elif action == "hold":
        hold(path, int(rest[0]))
    elif action == "lock":
        lock(path)
    elif action == "database":
        lock_database(path, float(rest[0]))
    elif action == "die":
        die_at_every_commit(path, int(rest[0]))
    elif action == "struggle":
        struggle(path, int(rest[0]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
