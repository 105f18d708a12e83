"""Resume interrupted trials and train waiting trials of a study.

Examples:
  khmer-tuner resume
  khmer-tuner resume --output-dir training_output --workers 2
  khmer-tuner resume --retry-failed
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tuner.cli.existing_study import open_session, prepare_training, train_pending
from tuner.cli.options import Command, add_flag, add_metadata_option, add_study_options, add_training_options

if TYPE_CHECKING:
    from tuner.display.events import Display
    from tuner.session.session import Session
    from tuner.session.study_setup import ExistingStudy


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "--retry-failed", "also train the failed trials again, as new trials that replace them")
    add_training_options(parser)
    add_metadata_option(parser)
    add_study_options(parser, json=True)


def run(options: argparse.Namespace, existing: ExistingStudy) -> int:
    """Resume interrupted trials from their last finished epoch, and train waiting trials."""
    from studies import retry_failed_trials
    from tuner.session.run_options import StopConditions

    def open_study(display: Display) -> Session:
        session = open_session(options, existing, display)
        names = retry_failed_trials(session.study, session.context.folder) if options.retry_failed else []
        if names:
            display.note(f"retrying failed trials: {', '.join(names)}")
        return session

    return train_pending(options, open_study, StopConditions(until_targets=options.until_targets))


COMMAND = Command(__name__, __doc__, _add_options, prepare_training, run)
