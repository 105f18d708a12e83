"""A command's work on a study from the first trial to the results file, whatever interrupts it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies import (
    StudyStatus,
    default_results_name,
    default_storage_url,
    mask_password,
    render_results,
    study_invariants,
    study_status,
    without_retries,
    write_json,
)
from tuner.display import RunSummary
from tuner.session.objective import DATABASE_ERRORS
from tuner.session.output_paths import timestamp
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.workers.auto_count import WorkerCount
from tuner.workers.loop import ended, work


def run_study(
    session: Session,
    scope: TrialFilter,
    limits: StopConditions,
    *,
    workers: WorkerCount = 1,
    results_file: str | None = None,
) -> dict[str, Any]:
    """Train what a study owes, then write its results, also if this is interrupted, and tell the display.

    Args:
        session: The opened study.
        scope: Which trials.
        limits: What ends the work early.
        workers: Processes that work side by side; ``auto`` for as many as are fastest.
        results_file: Where results go; None for a name after the time, in the working directory.

    Returns:
        The documented results, of the whole study.
    """
    try:
        work(session, scope, limits, workers)
    except BaseException:
        _write_what_there_is(session, results_file)
        raise
    results = render_results(session.study, timestamp=timestamp())
    path = write_results(results, results_file)
    session.context.display.run_ended(_summary(session, scope, results, path))
    return results


def _write_what_there_is(session: Session, results_file: str | None) -> None:
    """Write the results of a study whose work has ended early; that this fails is not why it has."""
    try:
        # Who stops does not wait for a database that is away.
        with without_retries(session.study):
            write_results(render_results(session.study, timestamp=timestamp()), results_file)
    except DATABASE_ERRORS:
        pass  # what is away or damaged is told already, or by whoever looks next
    except OSError as error:
        session.context.display.note(f"the results were not written: {error}; `khmer-tuner export` writes them")


def write_results(results: Mapping[str, Any], results_file: str | None) -> Path:
    """Write results atomically; return the absolute path."""
    path = Path(results_file or default_results_name(results["timestamp"])).absolute()
    write_json(path, results)
    return path


def _summary(session: Session, scope: TrialFilter, results: Mapping[str, Any], path: Path) -> RunSummary:
    folder = session.context.folder
    status = study_status(session.study, folder)
    in_folder = session.storage_url == default_storage_url(folder.path)
    return RunSummary(
        results=results,
        results_path=path,
        output_dir=folder.path,
        storage_url=None if in_folder else mask_password(session.storage_url),
        records=ended(session, scope),
        targets=session.context.targets,
        monitor=study_invariants(session.study).monitor,
        leader=_leader(status, results),
        pending=status.pending,
    )


def _leader(status: StudyStatus, results: Mapping[str, Any]) -> str | None:
    """Return the experiment that the monitored metric puts before the results' best one, if there is one."""
    best = results["best_result"]
    if best is None or status.best is None or status.best.name == best["experiment_name"]:
        return None
    others = {row.name: row.best_value for row in status.rows}
    return status.best.name if status.best.best_value != others[best["experiment_name"]] else None
