"""The training of a study's pending trials, and its results file, which is written even after an interruption."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from search_spaces.diagnostics.disk import write_json
from search_spaces.files.regular_files import parse_json, read_bytes
from studies import (
    DATABASE_ERRORS,
    default_results_name,
    default_storage_url,
    ended_records,
    mask_password,
    own_records,
    render_results,
    study_invariants,
    study_status,
    without_retries,
)
from tuner.display.events import RunSummary
from tuner.display.terminal import shown_path
from tuner.session.output_paths import RESULTS, may_replace, timestamp
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.workers.loop import finished_trials, work

log = logging.getLogger(__name__)


def run_request(session: Session, request: RunRequest) -> dict[str, Any]:
    """Train the trials of a request in the session opened for the request; return the results of the whole study."""
    options = request.options
    return run_study(
        session,
        request.trial_filter,
        StopConditions(until_targets=options.until_targets),
        workers=options.workers,
        threads=options.threads,
        results_file=options.results_file,
    )


def run_study(
    session: Session,
    trial_filter: TrialFilter,
    stop_conditions: StopConditions,
    *,
    workers: int = 1,
    threads: int | None = None,
    results_file: str | None = None,
) -> dict[str, Any]:
    """Train a study's pending trials, write its results even after an interruption, and show the summary.

    The function also waits for trials that other processes are training, so that the results include these trials.

    Args:
        session: The opened study.
        trial_filter: The trials to train.
        stop_conditions: When to stop early.
        workers: Number of parallel worker processes.
        threads: Number of PyTorch threads of each worker; see `RunOptions.threads`.
        results_file: The results file; None for a default name with the time, in the working directory. If nothing was
            trained, results are written only to a named file that lacks them.

    Returns:
        The documented results of the whole study.
    """
    attempts = _count_attempts(session)
    try:
        work(session, trial_filter, stop_conditions, workers, threads=threads, wait_for_others=True)
    except BaseException:
        _write_partial_results(session, results_file, attempts)
        raise
    results = render_results(session.study, timestamp=timestamp())
    path = _write_new_results(session, results, results_file, attempts)
    session.context.display.run_ended(_summary(session, trial_filter, results, path))
    return results


def _count_attempts(session: Session) -> int:
    return sum(len(record.attempts) for record in own_records(session.study))


def _write_partial_results(session: Session, results_file: str | None, attempts: int) -> None:
    """Write the results after an interruption, without raising errors that would hide the cause of the interruption."""
    try:
        # Do not wait for a lost connection while stopping.
        with without_retries(session.study):
            results = render_results(session.study, timestamp=timestamp())
            path = _write_new_results(session, results, results_file, attempts)
        if path is not None:
            session.context.display.note(f"the results so far are in {shown_path(path)}")
    except DATABASE_ERRORS:
        pass  # the cause of the interruption is reported already
    except OSError as error:
        session.context.display.note(f"the results were not written: {error}; `khmer-tuner export` writes them")


def _write_new_results(
    session: Session, results: Mapping[str, Any], results_file: str | None, attempts: int
) -> Path | None:
    """Write results that are new since `attempts` was counted; return the path, or None if nothing was written."""
    # A named file may still lack results, because a killed command wrote none.
    if _count_attempts(session) == attempts:
        if results_file is None:
            return None
        with contextlib.suppress(OSError, ValueError, TypeError):
            if parse_json(read_bytes(results_file)) | {"timestamp": results["timestamp"]} == results:
                return None
    return write_results(results, results_file)


def write_results(results: Mapping[str, Any], results_file: str | None) -> Path:
    """Write results atomically and return the path.

    If `results_file` exists and is not a results file, the results are written under a default name in its folder.
    """
    wanted = Path(results_file or default_results_name(results["timestamp"])).absolute()
    names = (default_results_name(f"{results['timestamp']}{'_' * number}") for number in count())
    path = next(path for path in chain([wanted], map(wanted.with_name, names)) if may_replace(path, RESULTS))
    write_json(path, results)
    if path != wanted:
        log.warning("%s is no longer a %s; the results are in %s", shown_path(wanted), RESULTS, shown_path(path))
    return path


def _summary(session: Session, trial_filter: TrialFilter, results: Mapping[str, Any], path: Path | None) -> RunSummary:
    folder = session.context.folder
    status, best = study_status(session.study, folder), results["best_result"]
    outcomes = {record.experiment_name: record.outcome for record in ended_records(session.study)}
    outcome = outcomes.get(best["experiment_name"]) if best else None
    invariants = study_invariants(session.study)
    leader = None if best is None else status.leader_over(best["experiment_name"])
    in_folder = session.storage_url == default_storage_url(folder.path)
    return RunSummary(
        results=results,
        results_path=path,
        output_dir=folder.path,
        storage_url=None if in_folder else mask_password(session.storage_url),
        records=finished_trials(session, trial_filter),
        targets=session.context.targets,
        monitor=invariants.monitor,
        leader=None if leader is None else leader.name,
        pending=status.pending,
        training_images=len(session.context.cache[invariants.dataset["train_split"]]),
        is_complete=status.ended == status.total,
        unseen=outcome.unseen_text if outcome else "",
    )
