"""Which checkpoints are kept when a trial has ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import optuna

from studies import OutputFolder, TrialRecord, records_not_kept
from tuner.training.checkpoint_paths import checkpoint_dir
from tuner.training.checkpoints import CheckpointFolder


def tidy_checkpoints(study: optuna.Study, folder: OutputFolder, ended: Iterable[TrialRecord], tidied: set[int]) -> None:
    """Remove what ended trials needed to be resumed, and all checkpoints of search trials that are not among the best.

    Args:
        study: The study.
        folder: Its folder.
        ended: The trials that need not be resumed any more.
        tidied: Numbers of the search trials whose checkpoints were removed before; those of this call are added.
    """
    with contextlib.suppress(OSError):  # training goes on when a file cannot be removed
        for checkpoints in _existing_checkpoints(ended, folder):
            checkpoints.delete_resume_files()
        # A trial that left the best ones cannot return to them.
        not_kept = [record for record in records_not_kept(study) if record.number not in tidied]
        _remove_checkpoints(not_kept, folder)
        tidied |= {record.number for record in not_kept}


def _remove_checkpoints(records: Iterable[TrialRecord], folder: OutputFolder) -> None:
    for checkpoints in _existing_checkpoints(records, folder):
        checkpoints.clear()


def _existing_checkpoints(records: Iterable[TrialRecord], folder: OutputFolder) -> Iterator[CheckpointFolder]:
    """Yield the checkpoint folder of each trial that has checkpoints; most trials of a large study have none."""
    for record in records:
        path = checkpoint_dir(folder.trial_dir(record.experiment_name))
        if any(path.glob("*")) and folder.holds(path):  # the target of a link is not ours to remove
            yield CheckpointFolder(path, record.training_config)
