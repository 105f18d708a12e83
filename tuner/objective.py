"""From a claimed trial to a told one: the place where a study meets the training engine."""

from __future__ import annotations

import contextlib
import errno
import logging
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from search_spaces import Targets, TrainingConfig
from search_spaces.training_config import WITHOUT_INFLUENCE
from studies import Claim, OutputFolder, TrialOutcome, WhyEnded, study_space, suggest_all
from tuner.data.batches import TrainingData
from tuner.data.pixel_cache import PixelCache
from tuner.display import Display
from tuner.training.checkpoints import CheckpointFolder
from tuner.training.early_stopping import EarlyStopping
from tuner.training.environment import setup_training_environment
from tuner.training.history import EpochMetrics, TrainingResult
from tuner.training.loop import train
from tuner.training.recorder import log_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workplace:
    """What every trial of a run has in common.

    Attributes:
        folder: The study's output folder.
        cache: The dataset's pixels.
        experiments: What the run trains; where and how the work is done (`WITHOUT_INFLUENCE`) is as it says.
        targets: What experiments should reach.
        display: Who is told.
    """

    folder: OutputFolder
    cache: PixelCache
    experiments: Mapping[str, TrainingConfig]
    targets: Targets
    display: Display


def run_trial(claim: Claim, workplace: Workplace) -> None:
    """Train a claimed trial and tell the study how it ended, whatever happens.

    An interruption (KeyboardInterrupt) passes through, and so do a full disk and a database that cannot be reached: the
    trial stays running in the study, and whoever claims it next goes on after its last epoch.
    """
    folder = workplace.folder.trial_dir(claim.record.experiment_name)
    epochs: list[EpochMetrics] = []
    try:
        result = _train_logged(claim, workplace, folder, epochs)
    except Exception as error:
        if _comes_from_outside(error):
            raise
        claim.finish(_failure(error, epochs))
    else:
        monitor = claim.record.training_config.early_stopping_monitor
        value = result.history[result.best_epoch - 1].value(monitor) if result.best_epoch else None
        claim.finish(_outcome(result, workplace.targets), value)
    # Only now: a process that dies before telling leaves a trial that the next one can still finish.
    with contextlib.suppress(OSError):  # what cannot be removed takes room, but keeps nobody from going on
        _checkpoints(folder, claim.record.training_config).end()


def _train_logged(claim: Claim, workplace: Workplace, folder: Path, epochs: list[EpochMetrics]) -> TrainingResult:
    with log_file(folder):
        try:
            return _train(claim, workplace, folder, epochs)
        except Exception:
            log.exception("%s failed", claim.record.experiment_name)
            raise


def _train(claim: Claim, workplace: Workplace, folder: Path, epochs: list[EpochMetrics]) -> TrainingResult:
    """Train a trial; `epochs` collects what it finished, also if it fails."""
    trial, display, name = claim.trial, workplace.display, claim.record.experiment_name
    suggested = suggest_all(trial, study_space(trial.study), claim.record.training_config)
    today = {field: getattr(workplace.experiments[name], field) for field in WITHOUT_INFLUENCE}
    config = replace(suggested, **today | {"experiment_name": name, "output_dir": str(workplace.folder.path)})
    display.trial_started(name, trial.number, config, adopted=claim.adopted)
    reported = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def on_epoch_end(metrics: EpochMetrics, early_stopping: EarlyStopping) -> bool:
        epochs.append(metrics)
        # Best so far, so that the last report of a trial is its best; epochs known from before a kill stay.
        if metrics.epoch not in reported and early_stopping.best is not None:
            trial.report(early_stopping.best, metrics.epoch)
        display.epoch_ended(metrics, early_stopping)
        return False

    device, _ = setup_training_environment(config)
    data = TrainingData.of(config, workplace.cache, device)
    return train(config, data, folder, on_epoch_end=on_epoch_end, on_batch=display.batch)


def _outcome(result: TrainingResult, targets: Targets) -> TrialOutcome:
    diverged = result.why_ended == "nonfinite_loss"
    return TrialOutcome(
        why_ended=WhyEnded(result.why_ended),
        training_time_s=result.training_time_s,
        best_val_char_accuracy=result.highest("val_char_accuracy"),
        best_val_seq_accuracy=result.highest("val_seq_accuracy"),
        final_train_loss=result.history[-1].train_loss if result.history else None,
        total_epochs=len(result.history),
        best_epoch=result.best_epoch or None,
        epoch_seconds_median=_median_seconds(result.history),
        converged_epoch=_converged_epoch(result.history, targets),
        error_message="the loss became infinite or not a number; try a lower learning_rate" if diverged else "",
    )


def _failure(error: Exception, epochs: list[EpochMetrics]) -> TrialOutcome:
    return TrialOutcome(
        why_ended=WhyEnded.OUT_OF_MEMORY if _is_out_of_memory(error) else WhyEnded.FAILED,
        training_time_s=sum(epoch.epoch_seconds for epoch in epochs),
        best_val_char_accuracy=max((epoch.val_char_accuracy for epoch in epochs), default=0.0),
        best_val_seq_accuracy=max((epoch.val_seq_accuracy for epoch in epochs), default=0.0),
        final_train_loss=epochs[-1].train_loss if epochs else None,
        total_epochs=len(epochs),
        best_epoch=None,
        epoch_seconds_median=_median_seconds(epochs),
        error_type=type(error).__name__,
        error_message=str(error) or type(error).__name__,
    )


def _comes_from_outside(error: Exception) -> bool:
    """Return whether an error is none of the experiment's, so that trying again later may well succeed."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    return isinstance(error, StorageInternalError | SQLAlchemyError)


def _is_out_of_memory(error: Exception) -> bool:
    # PyTorch has no type of its own for memory that the CPU's allocator does not get.
    return isinstance(error, torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _median_seconds(epochs: list[EpochMetrics] | tuple[EpochMetrics, ...]) -> float | None:
    return statistics.median(epoch.epoch_seconds for epoch in epochs) if epochs else None


def _converged_epoch(epochs: tuple[EpochMetrics, ...], targets: Targets) -> int | None:
    """Return the first epoch that meets both accuracy targets; None if none does or there are none."""
    if targets.character_accuracy is None and targets.sequence_accuracy is None:
        return None
    for epoch in epochs:
        characters = epoch.val_char_accuracy >= (targets.character_accuracy or 0.0)
        if characters and epoch.val_seq_accuracy >= (targets.sequence_accuracy or 0.0):
            return epoch.epoch
    return None


def _checkpoints(folder: Path, config: TrainingConfig) -> CheckpointFolder:
    return CheckpointFolder(
        folder / "checkpoints",
        save_every_n_epochs=config.save_every_n_epochs,
        keep_n_checkpoints=config.keep_n_checkpoints,
    )
