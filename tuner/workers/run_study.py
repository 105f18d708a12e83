"""Training a study's pending trials and writing its results, also after an interruption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces.diagnostics.atomic_files import write_json
from studies import (
    DATABASE_ERRORS,
    default_results_name,
    default_storage_url,
    mask_password,
    render_results,
    study_invariants,
    study_status,
    without_retries,
)
from tuner.display import RunSummary
from tuner.session.output_paths import timestamp
from tuner.session.run_options import StopConditions, TrialFilter, WorkerCount
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.workers.loop import ended, wait_for_others, work


def run_request(session: Session, request: RunRequest) -> dict[str, Any]:
    """Train what a request asks for in the session that was opened for it; otherwise as `run_study`."""
    options = request.options
    return run_study(
        session,
        request.trial_filter,
        StopConditions(until_targets=options.until_targets),
        workers=options.workers,
        results_file=options.results_file,
    )


def run_study(
    session: Session,
    trial_filter: TrialFilter,
    stop_conditions: StopConditions,
    *,
    workers: WorkerCount = 1,
    results_file: str | None = None,
) -> dict[str, Any]:
    """Train a study's pending trials, then write its results, also if this is interrupted, and show the summary.

    It waits for trials that other processes train, so that their results are among these.

    Args:
        session: The opened study.
        trial_filter: Which trials.
        stop_conditions: What ends the work early.
        workers: Processes that train in parallel; ``auto`` measures how many are fastest.
        results_file: The results file; None for a name with the time, in the working directory.

    Returns:
        The documented results, of the whole study.
    """
    try:
        work(session, trial_filter, stop_conditions, workers)
        wait_for_others(session, trial_filter, stop_conditions)
    except BaseException:
        _write_partial_results(session, results_file)
        raise
    results = render_results(session.study, timestamp=timestamp())
    path = write_results(results, results_file)
    session.context.display.run_ended(_summary(session, trial_filter, results, path))
    return results


def _write_partial_results(session: Session, results_file: str | None) -> None:
    """Write the results after an interruption; a failure here must not hide its cause."""
    try:
        # A process that stops does not wait for a lost connection.
        with without_retries(session.study):
            write_results(render_results(session.study, timestamp=timestamp()), results_file)
    except DATABASE_ERRORS:
        pass  # the cause of the interruption is reported already
    except OSError as error:
        session.context.display.note(f"the results were not written: {error}; `khmer-tuner export` writes them")


def write_results(results: Mapping[str, Any], results_file: str | None) -> Path:
    """Write results atomically; return the absolute path."""
    path = Path(results_file or default_results_name(results["timestamp"])).absolute()
    write_json(path, results)
    return path


def _summary(session: Session, trial_filter: TrialFilter, results: Mapping[str, Any], path: Path) -> RunSummary:
    folder = session.context.folder
    status, best = study_status(session.study, folder), results["best_result"]
    leader = None if best is None else status.leader_over(best["experiment_name"])
    in_folder = session.storage_url == default_storage_url(folder.path)
    return RunSummary(
        results=results,
        results_path=path,
        output_dir=folder.path,
        storage_url=None if in_folder else mask_password(session.storage_url),
        records=ended(session, trial_filter),
        targets=session.context.targets,
        monitor=study_invariants(session.study).monitor,
        leader=None if leader is None else leader.name,
        pending=status.pending,
    )
