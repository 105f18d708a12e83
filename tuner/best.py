"""The winner of a study; no PyTorch is needed to find it."""

from __future__ import annotations

from pathlib import Path

from search_spaces import ConfigurationError
from studies import TrialRecord, best_record, ended_records, load_study


def best_checkpoint(
    output_dir: Path, *, storage: str | None = None, study_name: str | None = None
) -> tuple[Path, TrialRecord]:
    """Return the checkpoint of a study's best completed trial, and what the study knows of that trial.

    The best trial is that of the results file: the highest validation character accuracy, then sequence accuracy,
    then the lower number; pruned trials do not count.

    Args:
        output_dir: The study's output folder; it is only read.
        storage: The study's storage URL, needed only to add a password.
        study_name: The study's name, needed only to make sure.

    Raises:
        ConfigurationError: There is no study, no trial of it has completed, or the checkpoint is gone.
    """
    study, folder = load_study(output_dir, storage_url=storage, name=study_name)
    record = best_record(ended_records(study))
    if record is None:
        raise ConfigurationError(
            f"output folder {folder.path}: no trial of its study has completed yet, so there is no best one; "
            "`khmer-tuner status` shows how far they are"
        )
    checkpoint = folder.trial_dir(record.experiment_name) / "checkpoints" / "best.pt"
    if not checkpoint.is_file():
        raise ConfigurationError(
            f"checkpoint {checkpoint}: the file of the best trial, {record.experiment_name!r} "
            f"(number {record.number}), is gone; put it back, or name the checkpoint of another trial"
        )
    return checkpoint, record
