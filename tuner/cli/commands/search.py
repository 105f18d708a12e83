"""``search``: continue the open search of a study."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from tuner.cli.existing_study import prepare_training, train_pending
from tuner.cli.options import (
    MOST_TRIALS,
    Command,
    add_device_option,
    add_json_option,
    add_metadata_option,
    add_results_option,
    add_search_options,
    add_study_options,
    add_until_targets_option,
    add_workers_option,
    search_request,
    seconds,
    whole_number,
)

if TYPE_CHECKING:
    from tuner.session.study_setup import ExistingStudy


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``search``."""
    parser.add_argument(
        "--trials",
        metavar="N",
        type=whole_number(1, MOST_TRIALS),
        required=True,
        help="number of search trials to add to the study",
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        help="stop after this many seconds, at the end of the current epoch; the trials can be resumed",
    )
    add_until_targets_option(parser)
    add_results_option(parser)
    add_workers_option(parser)
    add_metadata_option(parser)
    add_device_option(parser)
    add_json_option(parser)
    add_search_options(parser)
    add_study_options(parser)


def run(options: argparse.Namespace, existing: ExistingStudy) -> int:
    """Add search trials and train the pending trials."""
    from tuner.session.run_options import StopConditions

    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    request = search_request(options, more=options.trials)
    stop_conditions = StopConditions(deadline, options.until_targets)
    return train_pending(options, existing, lambda session: session.search(request), stop_conditions)


COMMAND = Command(
    name="search",
    summary="add trials to the open search of a study and train them",
    examples="""\
  khmer-tuner search --trials 1
  khmer-tuner search --trials 2 --workers 2 --timeout 3600

It trains the pending trials of the study first, presets included.""",
    add_options=add_options,
    prepare=prepare_training,
    run=run,
)
