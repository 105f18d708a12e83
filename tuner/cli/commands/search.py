"""Add trials to the open search of a study and train them.

Examples:
  khmer-tuner search --trials 1
  khmer-tuner search --trials 2 --workers 2 --timeout 3600

It trains the pending trials of the study first, presets included.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from tuner.cli.existing_study import prepare_training, train_pending
from tuner.cli.options import (
    MOST_TRIALS,
    Command,
    add_metadata_option,
    add_option,
    add_search_options,
    add_set_option,
    add_study_options,
    add_training_options,
    overrides_of,
    search_request,
    seconds,
    whole_number,
)

if TYPE_CHECKING:
    from tuner.session.study_setup import ExistingStudy


def _add_options(parser: argparse.ArgumentParser) -> None:
    trials = "number of search trials to add to the study"
    add_option(parser, "--trials", "N", whole_number(1, MOST_TRIALS), trials, required=True)
    timeout = "stop after this many seconds, at the end of the current epoch; the trials can be resumed"
    add_option(parser, "--timeout", "S", seconds, timeout)
    add_training_options(parser)
    add_set_option(parser, "all search trials, fixed when the search starts")
    add_metadata_option(parser)
    add_search_options(parser)
    add_study_options(parser, json=True)


def run(options: argparse.Namespace, existing: ExistingStudy) -> int:
    """Add search trials and train the pending trials."""
    from tuner.session.run_options import StopConditions

    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    request = search_request(options, overrides_of(options, for_trials=True), more=options.trials)
    stop_conditions = StopConditions(deadline, options.until_targets)
    return train_pending(options, existing, lambda session: session.search(request), stop_conditions)


COMMAND = Command(__name__, __doc__, _add_options, prepare_training, run)
