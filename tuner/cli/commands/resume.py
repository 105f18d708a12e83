"""``resume``: finish whatever a study owes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tuner.cli.existing_study import reopened_problems, work_on
from tuner.cli.options import (
    Command,
    add_device_option,
    add_json_option,
    add_metadata_option,
    add_results_option,
    add_study_options,
    add_until_targets_option,
    add_workers_option,
)

if TYPE_CHECKING:
    from tuner.session.session import Session


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``resume``."""
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="train presets that failed once more; the new trial takes the place of the failed one",
    )
    add_until_targets_option(parser)
    add_results_option(parser)
    add_workers_option(parser)
    add_metadata_option(parser)
    add_device_option(parser)
    add_json_option(parser)
    add_study_options(parser)


def run(options: argparse.Namespace) -> int:
    """Train interrupted trials from their last epoch, waiting presets and what is left of the search."""
    from studies import retry_failed_presets
    from tuner.session.run_options import StopConditions

    def retry(session: Session) -> None:
        names = retry_failed_presets(session.study, session.context.folder) if options.retry_failed else []
        if names:
            session.context.display.note(f"once more: {', '.join(names)}")

    return work_on(options, retry, StopConditions(until_targets=options.until_targets))


COMMAND = Command(
    name="resume",
    summary="finish whatever a study owes: interrupted trials, waiting presets, search trials",
    examples="""\
  khmer-tuner resume
  khmer-tuner resume --output-dir training_output --workers auto
  khmer-tuner resume --retry-failed""",
    add_options=add_options,
    run=run,
    problems=reopened_problems,
)
