"""Trials that train nothing, run in parallel processes to measure the cost of the study alone."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkProcess
from typing import Any

import optuna
import sqlalchemy

from benchmark.plan import Figures
from search_spaces import TrainingConfig, load_model_definitions
from studies import (
    Claim,
    OutputFolder,
    SamplerName,
    SearchRequest,
    StudyInvariants,
    TrialKind,
    TrialOutcome,
    WhyEnded,
    add_search_trials,
    claim_next_trial,
    create_or_join_study,
    enqueue_presets,
    open_storage,
    search_settings,
    study_space,
    suggest_all,
)
from studies.storage.url import sqlite_path

# Long, because sixteen processes start slowly on few cores.
_START_TIMEOUT_S = 120.0
_POLL_S = 0.1
_NAME = "runners"
_SEED = 0
_CONTEXT = multiprocessing.get_context("fork")


def run_trials(output_dir: str, url: str, workers: int, presets: int, searches: int) -> Figures:
    """Create a study and run its trials in several processes, which start to claim at the same moment.

    Args:
        output_dir: Output folder of the study.
        url: URL of an empty database.
        workers: Number of processes.
        presets: Number of presets, enqueued before the processes start.
        searches: Number of search trials, which the processes add with the random sampler during the run.

    Returns:
        Number of trials; seconds from the common start to the end of the last trial; SQL statements, commits and CPU
        seconds, in total for all processes; maximum number of connections of one process, None for SQLite.
    """
    # SIGTERM must raise an exception, because daemon processes are only terminated when this process exits normally.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # A connection does not survive a fork, so this process opens none.
    _join_all([_start(_create, output_dir, url, presets, searches)])
    ready = _CONTEXT.Barrier(workers + 1, timeout=_START_TIMEOUT_S)
    results = _CONTEXT.SimpleQueue()
    running = [_start(_work_when_ready, output_dir, url, ready, results.put) for _ in range(workers)]
    try:
        ready.wait()
    except threading.BrokenBarrierError:
        raise RuntimeError(
            f"not all workers started within {_START_TIMEOUT_S:g} s (expected {workers}); use an idle machine"
        ) from None
    started_at = time.monotonic()
    connections = _max_connections(url, running)
    _join_all(running)
    found = [results.get() for _ in running]
    trials = sum(worker["trials"] for worker in found)
    if trials != presets + searches:
        raise RuntimeError(f"wrong number of finished trials: found {trials}, expected {presets + searches}")
    return {
        "trials": trials,
        "seconds": max(worker["finished_at"] for worker in found) - started_at,
        **{name: sum(worker[name] for worker in found) for name in ("statements", "commits", "cpu_seconds")},
        "connections": connections,
    }


def _start(action: Callable[..., object], *arguments: object) -> ForkProcess:
    process = _CONTEXT.Process(target=action, args=arguments, daemon=True)
    process.start()
    return process


def _join_all(processes: Sequence[ForkProcess]) -> None:
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a process of the study {_NAME!r} exited with code {process.exitcode}; expected 0")


def _create(output_dir: str, url: str, presets: int, searches: int) -> None:
    study, folder = _open_study(output_dir, url)
    width = len(str(presets))
    names = [f"preset {number:0{width}d}" for number in range(presets)]
    enqueue_presets(
        study, folder, {name: TrainingConfig(experiment_name=name, batch_size=16 + n) for n, name in enumerate(names)}
    )
    if searches:
        add_search_trials(study, folder, SearchRequest(sampler=SamplerName.RANDOM, at_least=searches))


def _open_study(output_dir: str, url: str) -> tuple[optuna.Study, OutputFolder]:
    folder = OutputFolder(output_dir)
    models = load_model_definitions(TrainingConfig().model_config_path)
    invariants = StudyInvariants(
        monitor=TrainingConfig().early_stopping_monitor,
        mode=TrainingConfig().early_stopping_mode,
        seed=_SEED,
        dataset={
            "fingerprint": "none",
            "train_split": "train",
            "val_split": "val",
            "metadata_path": "/data/metadata.yaml",
        },
        models={name: model.model_dump(mode="json") for name, model in models.items()},
    )
    return create_or_join_study(open_storage(url), _NAME, folder, invariants), folder


def _work_when_ready(output_dir: str, url: str, ready: Any, report: Callable[[Mapping[str, float]], object]) -> None:
    study, folder = _open_study(output_dir, url)
    study.get_trials(deepcopy=False)
    ready.wait()
    trials, finished_at, cpu_before = 0, time.monotonic(), time.process_time()
    counts = _count_statements()
    while (claim := claim_next_trial(study, folder)) is not None:
        _train(claim)
        trials, finished_at = trials + 1, time.monotonic()
    report({"trials": trials, "finished_at": finished_at, "cpu_seconds": time.process_time() - cpu_before, **counts})


def _train(claim: Claim) -> None:
    """Sample, report and finish a trial as `tuner.session.objective` does, but without training.

    Leaves out notes and plots, which cause a third of a real trial's SQL statements.
    """
    study = claim.trial.study
    space, search = study_space(study), search_settings(study)
    is_preset = claim.record.kind is TrialKind.PRESET
    start = claim.record.training_config if is_preset or search is None else search.start
    with claim:
        config = suggest_all(claim.trial, space, start)
        if not is_preset:
            claim.record_config(config)
        value = 0.5 + config.learning_rate
        claim.check()
        claim.trial.report(value, step=1)
        claim.finish(
            TrialOutcome(
                why_ended=WhyEnded.MAX_EPOCHS,
                training_time_s=1.0,
                best_val_char_accuracy=value,
                best_val_seq_accuracy=0.25,
                final_train_loss=1.0,
                total_epochs=1,
                best_epoch=1,
                epoch_seconds_median=1.0,
            ),
            value,
        )


def _count_statements() -> Counter[str]:
    """Start to count this process's SQL statements and commits; return the counter."""
    counts = Counter(statements=0, commits=0)
    for event, name in (("before_cursor_execute", "statements"), ("commit", "commits")):
        sqlalchemy.event.listen(sqlalchemy.Engine, event, lambda *_, name=name: counts.update([name]))
    return counts


def _max_connections(url: str, running: Sequence[ForkProcess]) -> int | None:
    """Poll the server while processes run; return the maximum number of connections of one process, None for SQLite."""
    if sqlite_path(url) is not None:
        return None
    import psycopg

    # Each process has its own `application_name`, which contains host and process ID.
    counts = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'khmer-tuner %' GROUP BY application_name ORDER BY 1 DESC LIMIT 1"
    )
    most = 0
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        while any(process.is_alive() for process in running):
            row = connection.execute(counts).fetchone()
            most = max(most, row[0] if row else 0)
            time.sleep(_POLL_S)
    return most
