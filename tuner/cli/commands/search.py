"""Add search trials to a new or existing study and train them.

Examples:
  khmer-tuner search --trials 1
  khmer-tuner search --trials 2 --workers 2 --timeout 3600

Pending trials of the study, including presets, are trained first.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tuner.cli.errors import collector
from tuner.cli.existing_study import open_session, train_pending
from tuner.cli.options import (
    MOST_TRIALS,
    Command,
    above_zero,
    add_metadata_option,
    add_option,
    add_search_options,
    add_set_option,
    add_study_options,
    add_training_options,
    non_empty,
    overrides_of,
    search_request,
    whole_number,
)

if TYPE_CHECKING:
    from search_spaces.experiments.overrides import Overrides
    from tuner.display.events import Display
    from tuner.session.run_options import RunOptions
    from tuner.session.run_request import RunRequest
    from tuner.session.session import Session
    from tuner.session.study_setup import ExistingStudy

Prepared = tuple["ExistingStudy | None", "RunRequest"]


def _add_options(parser: argparse.ArgumentParser) -> None:
    trials = "number of search trials to add to the study"
    add_option(parser, "--trials", "N", whole_number(1, MOST_TRIALS), trials, required=True)
    timeout = "stop after this many seconds, at the end of the current epoch; the trials can be resumed"
    add_option(parser, "--timeout", "SECONDS", above_zero("a finite number of seconds above 0"), timeout)
    config = (
        "YAML file with experiments that define the dataset and the base settings of the search (those in which all "
        "experiments agree); the experiments are not trained (default: the study's experiments)"
    )
    add_option(parser, "--config", "FILE", non_empty, config)
    add_training_options(parser)
    add_set_option(parser, "fix a setting of all search trials when the search starts")
    add_metadata_option(parser)
    add_search_options(parser)
    add_study_options(parser, json=True)


def prepare(options: argparse.Namespace) -> Prepared:
    """Load and check the files, and the study if it exists."""
    from search_spaces import ConfigurationError
    from studies import DEFAULT_STUDY_NAME, OutputFolder, StudyNotStartedError
    from tuner.session.run_options import RunOptions
    from tuner.session.study_setup import ExistingStudy

    problems, existing, owner = collector(options), None, None
    overrides: Overrides = {}
    with problems.collect():
        owner = OutputFolder(options.output_dir).owner()
        try:
            existing = ExistingStudy.load(options.output_dir, storage=options.storage, name=options.study)
        except ConfigurationError as error:
            if owner is not None and not isinstance(error, StudyNotStartedError):
                raise  # the study's database is missing or damaged
    with problems.collect():
        overrides = overrides_of(options, for_trials=existing is not None)
    run_options = RunOptions(
        output_dir=options.output_dir,
        study_name=owner.study if owner else options.study or DEFAULT_STUDY_NAME,
        storage=existing.storage_url if existing else options.storage,
        device=options.device,
        results_file=options.results_file,
        space_file=options.space,
        search=search_request(options, overrides, problems=problems, more=options.trials),
        workers=options.workers,
        threads=options.threads,
    )
    with problems.collect():
        request = _request(options, existing, run_options, overrides)
    with problems.collect():
        run_options.check()
    problems.raise_all()
    return (existing if options.config is None else None), request


def run(options: argparse.Namespace, prepared: Prepared) -> int:
    """Add search trials and train all pending trials."""
    from tuner.session.run_options import StopConditions
    from tuner.session.session import Session

    existing, request = prepared
    deadline = None if options.timeout is None else time.monotonic() + options.timeout

    def open_study(display: Display) -> Session:
        for message in request.messages:
            display.note(message)
        if existing is None:
            return Session.open(request, display)
        session = open_session(options, existing, display)
        request.enqueue(session.study, session.context.folder, display.note)
        return session

    return train_pending(options, open_study, StopConditions(deadline, options.until_targets))


def _request(
    options: argparse.Namespace, existing: ExistingStudy | None, run_options: RunOptions, overrides: Overrides
) -> RunRequest:
    """Return the request for a search based on the experiments of ``--config``, or on defaults for a new study."""
    from search_spaces import TrainingConfig, load_model_definitions, load_overridden, load_search_space, override
    from tuner.session.run_request import RunRequest

    base = () if existing else tuple(override({"search": TrainingConfig()}, overrides).values())
    if options.config is not None:
        request = RunRequest.from_file(load_overridden(options.config, None, overrides), options=run_options)
        base = tuple(request.experiments.values())
    else:
        models = existing.invariants.definitions if existing else load_model_definitions(base[0].model_config_path)
        space = None if options.space is None else load_search_space(options.space, models)
        request = RunRequest(run_options, space=space, may_generate=True)
    if options.metadata is not None:
        base = tuple(replace(config, metadata_path=options.metadata) for config in base)
        request = replace(request, may_generate=False)
    run_options = replace(run_options, search=replace(run_options.search, base=base))
    request = replace(request, options=run_options, experiments={}, file_order=())
    if base:
        request.check_dataset()
    return request


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
