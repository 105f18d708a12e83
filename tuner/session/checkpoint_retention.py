"""Deletion of the checkpoints that finished trials no longer need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import optuna

from studies import OutputFolder, TrialRecord, records_beyond_retention
from tuner.training.checkpoints import CheckpointFolder
from tuner.training.history import checkpoint_dir


def delete_unneeded_checkpoints(
    study: optuna.Study, folder: OutputFolder, finished: Iterable[TrialRecord], deleted: set[int]
) -> None:
    """Delete the resume checkpoints of finished trials, and all checkpoints of search trials outside the best ten.

    Args:
        study: The study.
        folder: Its output folder.
        finished: The finished trials whose resume checkpoints are deleted.
        deleted: Numbers of the search trials whose checkpoints are already deleted; this call adds to them.
    """
    with contextlib.suppress(OSError):  # a file that cannot be deleted must not stop the training
        for checkpoints in _existing_checkpoints(finished, folder):
            checkpoints.delete_resume_files()
        # A trial that left the top ten cannot return to it.
        not_kept = [record for record in records_beyond_retention(study) if record.number not in deleted]
        _delete_checkpoints(not_kept, folder)
        deleted |= {record.number for record in not_kept}


def _delete_checkpoints(records: Iterable[TrialRecord], folder: OutputFolder) -> None:
    for checkpoints in _existing_checkpoints(records, folder):
        checkpoints.clear()


def _existing_checkpoints(records: Iterable[TrialRecord], folder: OutputFolder) -> Iterator[CheckpointFolder]:
    """Yield the checkpoint folders of the trials that have checkpoints; most trials of a large study have none."""
    for record in records:
        path = checkpoint_dir(folder.trial_dir(record.experiment_name))
        if any(path.glob("*")) and folder.contains(path):  # a symbolic link can lead to files outside the study
            yield CheckpointFolder(path, record.training_config)
