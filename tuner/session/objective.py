"""The objective of a study: train a claimed trial and report the result to the study."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from search_spaces import ConfigurationError, DataLoaderError, TrainingConfig, fit_loss
from studies import (
    DATABASE_ERRORS,
    MAX_CRASHES,
    Claim,
    TrialKind,
    TrialOutcome,
    fixed_space,
    report_again,
    search_settings,
    study_invariants,
    suggest_all,
)
from tuner.data.batches import TrainingData
from tuner.session.checkpoint_retention import delete_unneeded_checkpoints
from tuner.session.dashboard_updates import DashboardUpdates
from tuner.session.outcome import outcome_of_crashes, outcome_of_error, outcome_of_result
from tuner.session.run_context import RunContext, TrialInterrupted
from tuner.session.study_setup import save_model_definitions
from tuner.training.checkpoints import can_resume
from tuner.training.device import MemoryExhaustedError, setup_training_environment
from tuner.training.history import (
    EarlyStopping,
    EpochMetrics,
    TrainingResult,
    best_checkpoint_path,
    checkpoint_dir,
    read_metrics,
)
from tuner.training.loop import train
from tuner.training.recorder import log_file

log = logging.getLogger(__name__)


def run_trial(claim: Claim, context: RunContext) -> None:
    """Train a claimed trial and report its outcome to the study, whether it succeeds or fails.

    Interruptions (KeyboardInterrupt, `TrialInterrupted`) and errors that the trial did not cause (disk, database,
    dataset, device, any error before the first epoch) propagate. The trial then keeps the state RUNNING, and
    the next worker that claims the trial resumes it from its last finished epoch. `LeaseLost` also propagates, because
    another worker has taken over the trial.
    """
    folder = context.folder.trial_dir_for_work(claim.record.experiment_name)
    updates = DashboardUpdates(claim, context.folder)
    value = None
    if claim.crashed and _should_give_up(claim, folder):
        outcome = outcome_of_crashes(claim.record, read_metrics(folder))
    else:
        outcome, value = _train_to_the_end(claim, context, folder, updates)
    # Before `finish`, because a finished trial accepts no notes.
    updates.end(outcome, value)
    claim.finish(outcome, value)
    # Last, because the next worker needs the checkpoints if this process is killed before `finish`.
    delete_unneeded_checkpoints(claim.trial.study, context.folder, [claim.record], context.checkpoints_deleted)


def _should_give_up(claim: Claim, folder: Path) -> bool:
    """Return whether to report a trial with too many crashes as failed.

    A trial whose training has ended only needs to report its result, so it gets twice as many attempts.
    """
    config, epochs = claim.record.training_config, read_metrics(folder)
    early_stopping = EarlyStopping.of(config)
    for epoch in epochs:
        early_stopping.update(epoch.epoch, epoch.value(config.early_stopping_monitor))
    is_trained = len(epochs) >= config.num_epochs or (bool(epochs) and early_stopping.should_stop)
    return not is_trained or claim.record.consecutive_crashes >= 2 * MAX_CRASHES


def _train_to_the_end(
    claim: Claim, context: RunContext, folder: Path, updates: DashboardUpdates
) -> tuple[TrialOutcome, float | None]:
    """Train a trial; return its outcome and the best value of its monitored metric, None without a best epoch."""
    epochs: list[EpochMetrics] = []
    try:
        with log_file(folder):
            try:
                result = _train(claim, context, folder, updates, epochs)
            except Exception:
                log.exception("%s failed", claim.record.experiment_name)
                raise
    except Exception as error:
        context.folder.check_in_place()
        # Configuration and dataset were checked before, so these errors are caused by this machine.
        is_external = isinstance(error, (OSError, *DATABASE_ERRORS, ConfigurationError, DataLoaderError))
        if is_external or not (epochs or isinstance(error, MemoryExhaustedError)):
            raise
        return outcome_of_error(error, epochs), None
    monitor = claim.record.training_config.early_stopping_monitor
    value = result.history[result.best_epoch - 1].value(monitor) if result.best_epoch else None
    return outcome_of_result(result, context.targets), value


def _train(
    claim: Claim, context: RunContext, folder: Path, updates: DashboardUpdates, epochs: list[EpochMetrics]
) -> TrainingResult:
    """Train a trial, and add its finished epochs to `epochs`, even if training fails."""
    trial, display, number, name = claim.trial, context.display, claim.record.number, claim.record.experiment_name
    save_model_definitions(trial.study, context.folder)
    config = context.local_config(_settings(claim), name)
    display.trial_started(number, name, config, resumed=claim.resumed)
    updates.start(config)
    reported = dict(trial.study.get_trials(deepcopy=False)[number].intermediate_values)
    if reported and not can_resume(checkpoint_dir(folder)):
        display.note(f"{name}: no checkpoints to resume from in {folder}; training restarts at epoch 1")

    def on_epoch_end(metrics: EpochMetrics, early_stopping: EarlyStopping) -> None:
        epochs.append(metrics)
        # Report the best value so far, so that the last reported value of a trial is its best.
        if early_stopping.best is not None and reported.get(metrics.epoch) != early_stopping.best:
            # An earlier attempt on another CPU or with another thread count may have reported another value.
            report = partial(report_again, trial) if metrics.epoch in reported else trial.report
            report(early_stopping.best, metrics.epoch)
        updates.epoch_ended(metrics, early_stopping)
        display.epoch_ended(number, metrics, early_stopping)

    def on_batch(done: int, total: int) -> None:
        if done == 0 and context.should_stop():
            raise TrialInterrupted
        display.batch(number, done, total)
        claim.touch()
        context.after_batch()

    def before_save() -> None:
        claim.check()
        context.folder.check_in_place(best_checkpoint_path(folder) if epochs else folder)

    device, _ = setup_training_environment(config)
    result = train(
        config,
        TrainingData.of(config, context.cache, device),
        folder,
        on_epoch_end=on_epoch_end,
        should_prune=_pruning_rule(claim, reported),
        on_batch=on_batch,
        before_save=before_save,
        on_plots=updates.show_plots,
    )
    before_save()  # check once more that the output folder and the best checkpoint exist
    return result


def _settings(claim: Claim) -> TrainingConfig:
    """Return the configuration of a preset, or sample the configuration of a search trial."""
    study = claim.trial.study
    space, search = fixed_space(study), search_settings(study)
    if claim.record.kind is TrialKind.PRESET:
        config = claim.record.training_config
        return config if space is None else suggest_all(claim.trial, space, config)
    assert space is not None, f"trial {claim.record.number} is a search trial, but its study has no search space"
    assert search is not None, f"trial {claim.record.number} is a search trial, but its study has no search settings"
    definitions = study_invariants(study).definitions

    def adjust(config: TrainingConfig) -> TrainingConfig:
        return fit_loss(replace(config, min_lr=min(config.min_lr, config.learning_rate)), definitions)

    settings = suggest_all(claim.trial, space, search.start, adjust=adjust)
    claim.record_config(settings)
    return settings


def _pruning_rule(claim: Claim, reported: Collection[int]) -> Callable[[int], bool]:
    """Return a function that decides whether to prune the trial after an epoch; presets are never pruned.

    The pruner has already decided about the epochs that an earlier attempt `reported`, except the last one. These
    decisions are not repeated if a machine without the checkpoints trains these epochs again.
    """
    if claim.record.kind is TrialKind.PRESET:
        return lambda epoch: False
    last = max(reported, default=0)
    return lambda epoch: epoch >= last and claim.trial.should_prune()
