"""``search``: continue the open search of a study."""

from __future__ import annotations

import argparse
import time

from tuner.cli.existing_study import reopened_problems, work_on
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``search``."""
    parser.add_argument(
        "--trials",
        metavar="N",
        type=whole_number(1, MOST_TRIALS),
        required=True,
        help="search trials on top of those that the study has",
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        help="leave the running trials after their epoch, to be gone on with, when so many seconds have passed",
    )
    add_until_targets_option(parser)
    add_results_option(parser)
    add_workers_option(parser)
    add_metadata_option(parser)
    add_device_option(parser)
    add_json_option(parser)
    add_search_options(parser)
    add_study_options(parser)


def problems(options: argparse.Namespace) -> list[str]:
    """Return what is wrong with the study, the results file and how the search is to be."""
    from studies import check_search

    return reopened_problems(options, lambda: check_search(search_request(options)))


def run(options: argparse.Namespace) -> int:
    """Add search trials and train what the study owes."""
    from tuner.session.run_options import StopConditions

    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    limits = StopConditions(deadline, options.until_targets)
    request = search_request(options, more=options.trials)
    return work_on(options, lambda session: session.search(request), limits)


COMMAND = Command(
    name="search",
    summary="continue the open search of a study with so many more trials",
    examples="""\
  khmer-tuner search --trials 1
  khmer-tuner search --trials 2 --workers 2 --timeout 3600

It first finishes whatever the study still owes, presets included.""",
    add_options=add_options,
    run=run,
    problems=problems,
)
