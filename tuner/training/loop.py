"""The training loop: one experiment from its first to its last epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from search_spaces import TrainingConfig
from tuner.data.batches import TrainingData
from tuner.data.pixel_cache import CachedSplit
from tuner.models.encoder import count_parameters
from tuner.training.checkpoints import CheckpointFolder, save_checkpoint
from tuner.training.device import amp_dtype
from tuner.training.early_stopping import EarlyStopping
from tuner.training.epoch import NonFiniteLossError, OnBatch, run_epoch
from tuner.training.history import EpochMetrics, TrainingResult
from tuner.training.optimizers import step_scheduler
from tuner.training.out_of_memory import MemoryExhaustedError, keep_freed_memory, release_freed_memory
from tuner.training.plot_updates import PlotUpdates
from tuner.training.plots import Plots
from tuner.training.recorder import Recorder, write_config
from tuner.training.training_state import TrainingState
from tuner.training.validation import SplitScore

log = logging.getLogger(__name__)

OnEpochEnd = Callable[[EpochMetrics, EarlyStopping], None]
ShouldPrune = Callable[[int, EarlyStopping], bool]
OnPlots = Callable[[Plots], None]


def train(
    config: TrainingConfig,
    data: TrainingData,
    folder: Path,
    *,
    on_epoch_end: OnEpochEnd = lambda metrics, early_stopping: None,
    should_prune: ShouldPrune = lambda epoch, early_stopping: False,
    on_batch: OnBatch = lambda done, total: None,
    before_keeping: Callable[[], object] = lambda: None,
    on_plots: OnPlots = lambda plots: None,
    careful: bool = False,
) -> TrainingResult:
    """Train one experiment to its end, from its last checkpoint if it has one.

    Args:
        config: What to train.
        data: Batches on the configured device.
        folder: The experiment's folder; ``checkpoints``, ``tensorboard``, ``configs`` and ``metrics.jsonl`` go there.
        on_epoch_end: Told every epoch, after its checkpoint is on disk, those before an interruption included.
        should_prune: Asked after an epoch that did not end the training by itself; training ends as ``pruned`` if it
            returns True. After an interruption the question about the last epoch is asked again.
        on_batch: Told the batches done and to do of an epoch: before the first and after each.
        before_keeping: Called when an epoch is over and nothing of it is on disk; what it raises passes through.
        on_plots: Given the plots of the training, from time to time while it runs and once when it has ended.
        careful: Whether to take half as many images at once as before: processes died in its next epoch, perhaps for
            want of memory.

    Raises:
        ConfigurationError, ModelCreationError: As `TrainingState.begin`.
        MemoryExhaustedError: There is not even memory for one image at once.
    """
    training = TrainingState.begin(config, steps_per_epoch=len(data.train))
    if training.device.type == "cpu":
        keep_freed_memory()
    checkpoints = CheckpointFolder(
        folder / "checkpoints",
        save_every_n_epochs=config.save_every_n_epochs,
        keep_n_checkpoints=config.keep_n_checkpoints,
    )
    _restore(training, checkpoints)
    if careful and _end(training, lambda epoch, early_stopping: False) is None:
        _take_fewer_at_once(training, training.micro_batch_size or config.batch_size, "processes died in this epoch")
    write_config(folder, config)
    recorder = Recorder(
        folder,
        config,
        training.history,
        parameters=count_parameters(training.model),
        steps_per_epoch=len(data.train),
    )
    plot_updates = PlotUpdates(data.val.split, checkpoints.best)
    _log_start(training, data)
    try:
        for finished in _retold(training):
            on_epoch_end(*finished)
        try:
            while (why_ended := _end(training, should_prune)) is None:
                metrics, score = _run_epoch_in_memory(training, checkpoints, data, recorder, on_batch)
                before_keeping()
                _keep(training, checkpoints, data.val.split, metrics, score)
                recorder.epoch(metrics)
                _log_epoch(training, metrics)
                on_epoch_end(metrics, training.early_stopping)
                if plot_updates.is_due:
                    plots = plot_updates.draw(training.history)
                    recorder.plots(plots, metrics.epoch)
                    on_plots(plots)
        except NonFiniteLossError as error:
            log.warning("%s", error)
            why_ended = "nonfinite_loss"
        plots = plot_updates.draw(training.history)
        recorder.ended(plots, len(training.history))
        on_plots(plots)
    finally:
        recorder.close()
    log.info("ended: %s, best epoch %d", why_ended, training.early_stopping.best_epoch)
    return TrainingResult(
        why_ended=why_ended,
        history=tuple(training.history),
        best_epoch=training.early_stopping.best_epoch,
        parameters=count_parameters(training.model),
        micro_batch_size=training.micro_batch_size,
    )


def _retold(training: TrainingState) -> Iterator[tuple[EpochMetrics, EarlyStopping]]:
    """Yield the epochs before an interruption again, each with what was best so far then."""
    signal = EarlyStopping.of(training.config)
    for metrics in training.history:
        signal.update(metrics.epoch, metrics.value(training.config.early_stopping_monitor))
        yield metrics, signal


def _end(training: TrainingState, should_prune: ShouldPrune) -> str | None:
    """Return why training ends after the epochs so far, or None if it goes on.

    An epoch's two questions look at one signal: has it stopped improving on itself, is it hopeless against others?
    """
    epochs = len(training.history)
    if epochs and training.early_stopping.should_stop:
        return "early_stopped"
    if epochs >= training.config.num_epochs:
        return "max_epochs"
    return "pruned" if epochs and should_prune(epochs, training.early_stopping) else None


def _run_epoch_in_memory(
    training: TrainingState, checkpoints: CheckpointFolder, data: TrainingData, recorder: Recorder, on_batch: OnBatch
) -> tuple[EpochMetrics, SplitScore]:
    """Train and validate the next epoch; when memory runs out, do so anew from its beginning with fewer images at once.

    Raises:
        MemoryExhaustedError: There is not even memory for one image at once.
        NonFiniteLossError: As `run_epoch`.
    """
    while True:
        try:
            return run_epoch(training, data, recorder, on_batch)
        except MemoryExhaustedError as error:
            if error.images == 1:
                raise
            too_many, reason = error.images, str(error)
        # Not within the handler: the error holds the frames, and so the tensors, of the pass that failed.
        training.weights.forget_gradient()
        release_freed_memory()
        state = (
            checkpoints.load_last()
            or TrainingState.begin(training.config, steps_per_epoch=len(data.train)).state_dict()
        )
        training.load_state_dict(state)
        recorder.epoch_given_up(training.history)
        _take_fewer_at_once(training, too_many, reason)


def _take_fewer_at_once(training: TrainingState, images: int, reason: str) -> None:
    """Halve the number of images in a pass; a batch is still one optimizer step."""
    training.micro_batch_size = max(1, images // 2)
    log.warning(
        "epoch %d: %s; training it with at most %d images at once, their gradients added up to batches of %d",
        len(training.history) + 1,
        reason,
        training.micro_batch_size,
        training.config.batch_size,
    )


def _keep(
    training: TrainingState, checkpoints: CheckpointFolder, val: CachedSplit, metrics: EpochMetrics, score: SplitScore
) -> None:
    """Close an epoch: schedule, early stopping, history, then everything to disk."""
    monitored = metrics.value(training.config.early_stopping_monitor)
    step_scheduler(training.scheduler, monitored)
    improved = training.early_stopping.update(metrics.epoch, monitored)
    training.history.append(metrics)
    if improved:
        save_checkpoint(checkpoints.best, best_state(training, val, metrics, score))
    checkpoints.save_epoch(metrics.epoch, training.state_dict())


def best_state(training: TrainingState, val: CachedSplit, metrics: EpochMetrics, score: SplitScore) -> dict[str, Any]:
    """Return what reading with the best model needs: weights, and how to build the network they belong to.

    What it read in the validation images is there too: it is plotted, and other readings are compared with it.
    So is what these images are like, since the dataset may be gone by then.
    """
    images = {
        "labels": val.labels,
        "aspect_ratios": val.aspect_ratios,
        "image_statistics": val.image_statistics,
    }
    return {
        "config": asdict(training.config),
        "definition": training.model.definition.model_dump(mode="json"),
        "metrics": asdict(metrics),
        "model": training.averaged_model.state_dict(),
        "validation": score.readings() | {name: torch.from_numpy(array) for name, array in images.items()},
    }


def _restore(training: TrainingState, checkpoints: CheckpointFolder) -> None:
    state = checkpoints.load_last()
    if state is not None and not training.is_of(state):
        log.warning("%s: the checkpoints there are of another training; beginning anew", checkpoints.path)
        state = None
    if state is None:
        checkpoints.clear()
        return
    training.load_state_dict(state)
    log.info("going on after epoch %d", len(training.history))


def _log_start(training: TrainingState, data: TrainingData) -> None:
    config = training.config
    log.info(
        "training %s: model %s, %d parameters, on %s in %s, %d threads",
        config.experiment_name,
        config.model_name,
        count_parameters(training.model),
        training.device,
        amp_dtype(training.device) if training.use_amp else torch.float32,
        torch.get_num_threads(),
    )
    log.info(
        "data: %d batches of %d cut straight from the pixel cache (%d loader workers not needed), augmentation %s",
        len(data.train),
        config.batch_size,
        config.num_workers,
        "on" if config.augmentation else "off",
    )


def _log_epoch(training: TrainingState, metrics: EpochMetrics) -> None:
    log.info(
        "epoch %d/%d: loss %.4f/%.4f, char %.4f/%.4f, seq %.4f/%.4f (train/val), lr %.2e, %.1f s",
        metrics.epoch,
        training.config.num_epochs,
        metrics.train_loss,
        metrics.val_loss,
        metrics.train_char_accuracy,
        metrics.val_char_accuracy,
        metrics.train_seq_accuracy,
        metrics.val_seq_accuracy,
        metrics.learning_rate,
        metrics.epoch_seconds,
    )
