"""Functions shared by the commands that read or train an existing study."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.errors import FAILED, SUCCESS, collector
from tuner.cli.output import print_json

if TYPE_CHECKING:
    import optuna

    from studies import OutputFolder
    from tuner.display.events import Display
    from tuner.session.run_options import StopConditions, TrialFilter
    from tuner.session.session import Session
    from tuner.session.study_setup import ExistingStudy

LoadedStudy = tuple["optuna.Study", "OutputFolder"]


def load(options: argparse.Namespace) -> LoadedStudy:
    """Open the study that the options select, for reading.

    Returns:
        The study and its output folder.

    Raises:
        ConfigurationError: The study does not exist or cannot be read.
    """
    from studies import load_study

    return load_study(options.output_dir, storage_url=options.storage, name=options.study)


def load_checkpoint_path(options: argparse.Namespace) -> Path:
    """Return the path of ``--checkpoint``, by default the checkpoint of the study's best trial.

    Raises:
        ConfigurationError: There is no study, or its best trial has no checkpoint.
    """
    if options.checkpoint is not None:
        return Path(options.checkpoint)
    from tuner.analysis.best_trial import best_checkpoint

    return best_checkpoint(*load(options))


def prepare_training(options: argparse.Namespace) -> ExistingStudy:
    """Load an existing study for training, and check ``--threads``, and ``--results-file`` if the command has it.

    Raises:
        ConfigurationError: The input is invalid; all problems are reported together.
    """
    from tuner.session.output_paths import check_results_file
    from tuner.session.run_options import check_workers
    from tuner.session.study_setup import ExistingStudy

    problems = collector(options)
    with problems.collect():
        existing = ExistingStudy.load(options.output_dir, storage=options.storage, name=options.study)
    if "results_file" in options:
        with problems.collect():
            check_results_file(options.results_file, options.output_dir)
    if vars(options).get("ray") is None:  # the CPUs of a cluster are not those of this machine
        with problems.collect():
            check_workers(options.workers, options.threads)
    problems.raise_all()
    return existing


def open_session(options: argparse.Namespace, existing: ExistingStudy, display: Display) -> Session:
    """Open a study for training, with the device and dataset that the options select."""
    from tuner.session.session import Session

    # With --ray, the device is that of the nodes.
    device = None if vars(options).get("ray") else options.device
    return Session.reopen(existing, display, device=device, metadata=options.metadata, threads=options.threads)


def train_pending(
    options: argparse.Namespace, open_study: Callable[[Display], Session], stop_conditions: StopConditions
) -> int:
    """Open a study, train its pending trials and write the results file; return the exit code."""
    from tuner.cli.display_factory import open_display
    from tuner.session.run_options import TrialFilter
    from tuner.workers.run_study import run_study

    trial_filter = TrialFilter()
    with open_display(with_summary=not options.json, debug=options.debug) as display:
        session = open_study(display)
        results = run_study(
            session,
            trial_filter,
            stop_conditions,
            workers=options.workers,
            threads=options.threads,
            results_file=options.results_file,
        )
        code = exit_code(session, trial_filter, stop_conditions)
    if options.json:
        print_json(results)
    return code


def exit_code(session: Session, trial_filter: TrialFilter, stop_conditions: StopConditions) -> int:
    """Return the exit code of a command that trained trials.

    The code is 1 if a preset failed, an error left a trial pending, search trials wait for a trial that no worker
    trains, or none of this command's trials succeeded; else 0. If this command finished no trial, all finished trials
    of the study count. If the study has no finished trial, the code is 0 only if the command was stopped.
    """
    from studies import TrialKind, TrialPhase
    from tuner.session.trial_selection import should_interrupt
    from tuner.workers.loop import finished_trials

    records = finished_trials(session, trial_filter)
    if trial_filter.skipped or not records:
        return FAILED if trial_filter.skipped or not should_interrupt(session, stop_conditions) else SUCCESS
    failed = any(record.kind is TrialKind.PRESET and record.phase is TrialPhase.FAILED for record in records)
    new = [record for record in records if record.number not in session.context.finished_before] or records
    return FAILED if failed or all(record.phase is TrialPhase.FAILED for record in new) else SUCCESS
