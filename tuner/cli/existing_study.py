"""What the commands have in common that work on a study which has begun."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.errors import FAILED, SUCCESS, gathered

if TYPE_CHECKING:
    from tuner.display import Display
    from tuner.session.run_options import StopConditions
    from tuner.session.session import Session


def reopened_problems(options: argparse.Namespace, *checks: Callable[[], object]) -> list[str]:
    """Return what is wrong with the study, the results file and whatever else is checked."""
    from studies import load_study
    from tuner.session.output_paths import check_results_path

    def check_study() -> None:
        load_study(options.output_dir, storage_url=options.storage, name=options.study)

    results_file = getattr(options, "results_file", None)
    return gathered([check_study, lambda: check_results_path(results_file), *checks], options)


def open_session(options: argparse.Namespace, display: Display) -> Session:
    """Open the study that the options name, for work."""
    from tuner.session.session import Session

    return Session.reopen(
        Path(options.output_dir),
        display=display,
        storage=options.storage,
        study_name=options.study,
        device=options.device,
        metadata=options.metadata,
    )


def work_on(options: argparse.Namespace, prepare: Callable[[Session], object], limits: StopConditions) -> int:
    """Open the study, prepare it, train what it owes and write its results; return the exit code."""
    from tuner.cli.display_factory import display_of_run
    from tuner.session.run_options import TrialFilter
    from tuner.workers.run_study import run_study

    with display_of_run(with_summary=not options.json, debug=options.debug) as display:
        session = open_session(options, display)
        prepare(session)
        results = run_study(session, TrialFilter(), limits, workers=options.workers, results_file=options.results_file)
        code = exit_code(session, limits)
    if options.json:
        print(json.dumps(results, ensure_ascii=False, indent=2))
    return code


def exit_code(session: Session, limits: StopConditions) -> int:
    """Return 1 if a preset of the study failed or nothing succeeded, unless it was stopped before, else 0."""
    from studies import TrialKind, TrialPhase, ended_records
    from tuner.session.trial_selection import is_interrupted

    records = ended_records(session.study)
    if not records:
        return SUCCESS if is_interrupted(session, limits) else FAILED
    failed = any(record.kind is TrialKind.PRESET and record.phase is TrialPhase.FAILED for record in records)
    return FAILED if failed or all(record.phase is TrialPhase.FAILED for record in records) else SUCCESS
