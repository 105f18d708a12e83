"""From a claimed trial to a told one: the place where a study meets the training engine."""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import optuna

from search_spaces import ConfigurationError, ModelDefinition, Targets, TrainingConfig, fit_loss
from search_spaces.diagnostics.disk_errors import is_disk_error
from search_spaces.training_config import WITHOUT_INFLUENCE
from studies import (
    DATABASE_ERRORS,
    MAX_CRASHES,
    Claim,
    OutputFolder,
    TrialKind,
    TrialOutcome,
    TrialRecord,
    WhyEnded,
    records_not_kept,
    report_again,
    search_settings,
    study_invariants,
    study_space,
    suggest_all,
)
from tuner.data.batches import TrainingData
from tuner.data.pixel_cache import PixelCache
from tuner.display import Display
from tuner.session.dashboard_updates import DashboardUpdates
from tuner.session.study_setup import keep_definitions
from tuner.training.checkpoint_paths import checkpoint_dir
from tuner.training.checkpoints import CheckpointFolder, has_state
from tuner.training.device import setup_training_environment
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics, TrainingResult, read_metrics
from tuner.training.loop import train
from tuner.training.out_of_memory import is_out_of_memory
from tuner.training.recorder import log_file

log = logging.getLogger(__name__)


class TrialInterrupted(BaseException):
    """The trial is left for later, after a finished epoch; like KeyboardInterrupt, it is no failure."""


@dataclass(frozen=True)
class RunContext:
    """What every trial of a run has in common.

    Attributes:
        folder: The study's output folder.
        cache: The dataset's pixels.
        experiments: What the run itself asks for; where and how the work is done (`WITHOUT_INFLUENCE`) is as it says.
        device: Where all trials train; None for where each configuration says.
        targets: What experiments should reach.
        display: Who is told.
        should_stop: Asked before each epoch whether the trial is to be left for later.
        after_batch: Called after each batch, for what else there is to do; it must not take long.
        tidied: Numbers of the search trials whose checkpoints this process need not look for any more.
    """

    folder: OutputFolder
    cache: PixelCache
    experiments: Mapping[str, TrainingConfig]
    device: str | None
    targets: Targets
    display: Display
    should_stop: Callable[[], bool] = lambda: False
    after_batch: Callable[[], object] = lambda: None
    tidied: set[int] = field(default_factory=set)

    def placed(self, config: TrainingConfig, name: str, models: Path) -> TrainingConfig:
        """Return a trial's configuration as it is trained here and now."""
        asked = self.experiments.get(name, config)
        today = {field: getattr(asked, field) for field in WITHOUT_INFLUENCE}
        today |= {"experiment_name": name, "output_dir": str(self.folder.path), "model_config_path": str(models)}
        if os.path.realpath(config.metadata_path) != os.path.realpath(self.cache.metadata_path):  # on another machine
            today["metadata_path"] = str(self.cache.metadata_path)
        return replace(config, **today | {"device": self.device or asked.device})


def run_trial(claim: Claim, context: RunContext) -> None:
    """Train a claimed trial and tell the study how it ended, whatever happens.

    Interruptions (KeyboardInterrupt, `TrialInterrupted`) pass through, and so do a full disk, a database that cannot be
    reached and a device that this machine lacks: the trial stays running in the study, and the worker that claims it
    next continues after its last epoch. `LeaseLost` passes through as well: another worker trains it already.
    """
    folder = context.folder.trial_dir_for_work(claim.record.experiment_name)
    page = DashboardUpdates(claim, context.folder)
    if claim.crashed and _may_kill_again(claim, read_metrics(folder)):
        _finish(claim, page, _crash(read_metrics(folder), reported=claim.record.attempts[-1].epochs))
    else:
        _train_to_the_end(claim, context, folder, page)
    # Only now: a process that dies before telling leaves a trial that the next one can still finish.
    tidy_checkpoints(claim.trial.study, context.folder, [claim.record], context.tidied)


def _may_kill_again(claim: Claim, epochs: Sequence[EpochMetrics]) -> bool:
    """Return whether a trial that has killed processes has an epoch left, or has killed too many without one."""
    config = claim.record.training_config
    signal = EarlyStopping.of(config)
    for epoch in epochs:
        signal.update(epoch.epoch, epoch.value(config.early_stopping_monitor))
    over = len(epochs) >= config.num_epochs or (bool(epochs) and signal.should_stop)
    return not over or claim.record.consecutive_crashes >= 2 * MAX_CRASHES


def _finish(claim: Claim, page: DashboardUpdates, outcome: TrialOutcome, value: float | None = None) -> None:
    # What is said of the trial before it is told: its end is the last thing that a study takes of it.
    page.end(outcome, value)
    claim.finish(outcome, value)


def _train_to_the_end(claim: Claim, context: RunContext, folder: Path, page: DashboardUpdates) -> None:
    epochs: list[EpochMetrics] = []
    try:
        result = _train_logged(claim, context, folder, page, epochs)
    except Exception as error:
        if _comes_from_outside(error):
            raise
        _finish(claim, page, _failure(error, epochs))
    else:
        monitor = claim.record.training_config.early_stopping_monitor
        value = result.history[result.best_epoch - 1].value(monitor) if result.best_epoch else None
        _finish(claim, page, _outcome(result, context.targets), value)


def _train_logged(
    claim: Claim, context: RunContext, folder: Path, page: DashboardUpdates, epochs: list[EpochMetrics]
) -> TrainingResult:
    with log_file(folder):
        try:
            return _train(claim, context, folder, page, epochs)
        except Exception:
            log.exception("%s failed", claim.record.experiment_name)
            raise


def _train(
    claim: Claim, context: RunContext, folder: Path, page: DashboardUpdates, epochs: list[EpochMetrics]
) -> TrainingResult:
    """Train a trial; `epochs` collects what it finished, also if it fails."""
    trial, display, number = claim.trial, context.display, claim.record.number
    keep_definitions(trial.study, context.folder)
    config = context.placed(_settings(claim), claim.record.experiment_name, context.folder.model_definitions_path)
    display.trial_started(number, claim.record.experiment_name, config, adopted=claim.adopted)
    page.begin(config)
    reported = dict(trial.study.get_trials(deepcopy=False)[number].intermediate_values)
    if reported and not has_state(checkpoint_dir(folder)):
        display.note(
            f"{claim.record.experiment_name}: its checkpoints are not in {folder}; it begins with epoch 1 again"
        )

    def on_epoch_end(metrics: EpochMetrics, early_stopping: EarlyStopping) -> None:
        epochs.append(metrics)
        # Best so far, so that the last report of a trial is its best.
        if early_stopping.best is not None and reported.get(metrics.epoch) != early_stopping.best:
            # An earlier attempt may have got elsewhere: on another kind of processor, or with other threads.
            tell = partial(report_again, trial) if metrics.epoch in reported else trial.report
            tell(early_stopping.best, metrics.epoch)
        page.epoch_ended(metrics, early_stopping)
        display.epoch_ended(number, metrics, early_stopping)

    def on_batch(done: int, total: int) -> None:
        if done == 0 and context.should_stop():
            raise TrialInterrupted
        display.batch(number, done, total)
        context.after_batch()

    device, _ = setup_training_environment(config)
    data = TrainingData.of(config, context.cache, device)
    return train(
        config,
        data,
        folder,
        on_epoch_end=on_epoch_end,
        should_prune=_pruning_rule(claim, reported),
        on_batch=on_batch,
        before_save=claim.check,
        on_plots=page.show,
        halve_micro_batch=claim.may_exceed_memory,
    )


def _settings(claim: Claim) -> TrainingConfig:
    """Return what a trial trains: a preset's own settings, or what is suggested for a search trial."""
    study = claim.trial.study
    space = study_space(study)
    if claim.record.kind is TrialKind.PRESET:
        return suggest_all(claim.trial, space, claim.record.training_config)
    search = search_settings(study)
    assert search is not None, "search trials are enqueued after the settings of the search"
    definitions = study_invariants(study).definitions
    settings = suggest_all(claim.trial, space, search.start, settle=partial(_settled, definitions=definitions))
    claim.record_config(settings)
    return settings


def _settled(config: TrainingConfig, definitions: Mapping[str, ModelDefinition]) -> TrainingConfig:
    """Return a configuration with the loss that its model learns with, and no floor above its learning rate."""
    return fit_loss(replace(config, min_lr=min(config.min_lr, config.learning_rate)), definitions)


def _pruning_rule(claim: Claim, reported: Collection[int]) -> Callable[[int], bool]:
    """Return what asks the study's pruner after an epoch; presets are never pruned.

    Args:
        claim: The trial.
        reported: Epochs that an earlier attempt reported. All but the last of them were judged then, which matters
            where they are trained again, on a machine that does not have their checkpoints.
    """
    if claim.record.kind is TrialKind.PRESET:
        return lambda epoch: False
    last = max(reported, default=0)
    return lambda epoch: epoch >= last and claim.trial.should_prune()


def _outcome(result: TrainingResult, targets: Targets) -> TrialOutcome:
    diverged = result.why_ended == "nonfinite_loss"
    message = "the loss became infinite or not a number; try a lower learning_rate" if diverged else ""
    outcome = _summed_up(result.history, WhyEnded(result.why_ended), targets, error_message=message)
    return replace(outcome, best_epoch=result.best_epoch or None, micro_batch_size=result.micro_batch_size)


def _failure(error: Exception, epochs: Sequence[EpochMetrics]) -> TrialOutcome:
    why = WhyEnded.OUT_OF_MEMORY if is_out_of_memory(error) else WhyEnded.FAILED
    kind = type(error).__name__
    return _summed_up(epochs, why, error_type=kind, error_message=str(error) or kind)


def _crash(epochs: Sequence[EpochMetrics], *, reported: int) -> TrialOutcome:
    """Return the outcome of a trial that killed too many processes.

    Args:
        epochs: What this machine's folder has of it.
        reported: How many epochs the study has; more of them where each machine has a folder of its own.
    """
    elsewhere = reported > len(epochs)
    where = f"before epoch {reported + 1} was finished" if elsewhere else f"in epoch {len(epochs) + 1}"
    message = f"{MAX_CRASHES} processes died one after the other {where}, for example for want of memory"
    if elsewhere:
        message += f"; the figures of {reported} epochs are in another machine's folder"
    outcome = _summed_up(epochs, WhyEnded.CRASHED, error_message=message)
    return replace(outcome, total_epochs=max(reported, len(epochs)))


def _summed_up(
    epochs: Sequence[EpochMetrics],
    why: WhyEnded,
    targets: Targets | None = None,
    *,
    error_type: str = "",
    error_message: str = "",
) -> TrialOutcome:
    return TrialOutcome(
        why_ended=why,
        training_time_s=sum(epoch.epoch_seconds for epoch in epochs),
        best_val_char_accuracy=max((epoch.val_char_accuracy for epoch in epochs), default=0.0),
        best_val_seq_accuracy=max((epoch.val_seq_accuracy for epoch in epochs), default=0.0),
        final_train_loss=epochs[-1].train_loss if epochs else None,
        total_epochs=len(epochs),
        best_epoch=None,
        epoch_seconds_median=statistics.median(epoch.epoch_seconds for epoch in epochs) if epochs else None,
        converged_epoch=None if targets is None else _converged_epoch(epochs, targets),
        error_type=error_type,
        error_message=error_message,
    )


def _comes_from_outside(error: Exception) -> bool:
    """Return whether an error is none of the experiment's, so that trying again later may well succeed."""
    # What is configured was checked before it came into the study, so it is this machine that cannot do it.
    return is_disk_error(error) or isinstance(error, (*DATABASE_ERRORS, ConfigurationError))


def _converged_epoch(epochs: Sequence[EpochMetrics], targets: Targets) -> int | None:
    """Return the first epoch that meets both accuracy targets; None if none does or there are none."""
    if targets.character_accuracy is None and targets.sequence_accuracy is None:
        return None
    for epoch in epochs:
        characters = epoch.val_char_accuracy >= (targets.character_accuracy or 0.0)
        if characters and epoch.val_seq_accuracy >= (targets.sequence_accuracy or 0.0):
            return epoch.epoch
    return None


def tidy_checkpoints(study: optuna.Study, folder: OutputFolder, ended: Iterable[TrialRecord], tidied: set[int]) -> None:
    """Remove what ended trials needed to go on, and all checkpoints of search trials that are not among the best.

    Args:
        study: The study.
        folder: Its folder.
        ended: The trials that need not go on any more.
        tidied: Numbers of search trials that are not among the best and have been seen to; those of now are added.
    """
    with contextlib.suppress(OSError):  # what cannot be removed takes room, but keeps nobody from going on
        for record in ended:
            if (checkpoints := _checkpoints_left(record, folder)) is not None:
                checkpoints.end()
        # Who is not among the best will never be again.
        not_kept = [record for record in records_not_kept(study) if record.number not in tidied]
        _remove_checkpoints(not_kept, folder)
        tidied |= {record.number for record in not_kept}


def _remove_checkpoints(records: Iterable[TrialRecord], folder: OutputFolder) -> None:
    for record in records:
        if (checkpoints := _checkpoints_left(record, folder)) is not None:
            checkpoints.clear()


def _checkpoints_left(record: TrialRecord, folder: OutputFolder) -> CheckpointFolder | None:
    """Return a trial's checkpoints; None if there are none, as for most trials of a big study."""
    path = checkpoint_dir(folder.trial_dir(record.experiment_name))
    try:
        with os.scandir(path) as files:
            if next(files, None) is None:
                return None
    except FileNotFoundError:
        return None
    if not folder.holds(path):  # what a link leads to is not ours to remove
        return None
    return CheckpointFolder(path, record.training_config)
