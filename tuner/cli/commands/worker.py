"""Join a study as a worker and train its pending trials.

Examples:
  khmer-tuner worker
  khmer-tuner worker --output-dir training_output --device cpu
  timeout 10 khmer-tuner worker --wait

Any number of workers can train the trials of a study in parallel. If the study
is stored in PostgreSQL (--storage or $KHMER_TUNER_STORAGE), they can run on
different machines. Workers write no results file; use `export` instead.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tuner.cli.errors import FAILED, SUCCESS
from tuner.cli.existing_study import open_session, prepare_training
from tuner.cli.options import (
    Command,
    add_device_option,
    add_flag,
    add_metadata_option,
    add_study_options,
    add_threads_option,
)

if TYPE_CHECKING:
    from tuner.session.study_setup import ExistingStudy


def _add_options(parser: argparse.ArgumentParser) -> None:
    wait = (
        "when no trial is pending, wait for trials that `enqueue`, `run` or `search` add; `khmer-tuner stop`, Ctrl-C "
        "or SIGTERM stop the worker"
    )
    add_flag(parser, "--wait", wait)
    add_threads_option(parser)
    add_metadata_option(parser)
    add_device_option(parser)
    add_study_options(parser)


def run(options: argparse.Namespace, existing: ExistingStudy) -> int:
    """Train pending trials until no trial is pending or the worker is stopped."""
    from studies import TrialPhase
    from tuner.cli.display_factory import open_display
    from tuner.session.run_options import StopConditions, TrialFilter
    from tuner.workers.loop import finished_trials, work

    trial_filter = TrialFilter()
    with open_display(with_summary=False, debug=options.debug) as display:
        session = open_session(options, existing, display)
        work(session, trial_filter, StopConditions(), threads=options.threads, wait=options.wait)
    new = [
        record
        for record in finished_trials(session, trial_filter)
        if record.number not in session.context.finished_before
    ]
    all_failed = bool(new) and all(record.phase is TrialPhase.FAILED for record in new)
    return FAILED if trial_filter.skipped or all_failed else SUCCESS


COMMAND = Command(__name__, __doc__, _add_options, prepare_training, run)
