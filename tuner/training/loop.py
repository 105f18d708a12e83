"""The training loop of one experiment."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from search_spaces import TrainingConfig
from tuner.data.batches import TrainingData
from tuner.data.pixel_cache import CachedSplit
from tuner.models.encoder import COLUMNS, count_parameters
from tuner.training.checkpoints import WRONG_CONTENT, CheckpointFolder, can_resume, load_checkpoint, save_checkpoint
from tuner.training.device import MemoryExhaustedError, amp_dtype, keep_freed_memory, release_freed_memory
from tuner.training.epoch import NonFiniteLossError, OnBatch, run_epoch
from tuner.training.history import BestEpochScore, EarlyStopping, EpochMetrics, TrainingResult, checkpoint_dir
from tuner.training.optimizers import step_scheduler
from tuner.training.plots import Plots, PlotUpdates
from tuner.training.recorder import Recorder, write_config
from tuner.training.training_state import TrainingState
from tuner.training.validation import SplitScore

log = logging.getLogger(__name__)

OnEpochEnd = Callable[[EpochMetrics, EarlyStopping], None]
ShouldPrune = Callable[[int], bool]
OnPlots = Callable[[Plots], None]


def train(
    config: TrainingConfig,
    data: TrainingData,
    folder: Path,
    *,
    on_epoch_end: OnEpochEnd = lambda metrics, early_stopping: None,
    should_prune: ShouldPrune = lambda epoch: False,
    on_batch: OnBatch = lambda done, total: None,
    before_save: Callable[[], object] = lambda: None,
    on_plots: OnPlots = lambda plots: None,
) -> TrainingResult:
    """Train one experiment to its end, resuming from its last checkpoint if there is one.

    Args:
        config: The experiment's configuration.
        data: Training and validation batches on the configured device.
        folder: The experiment's folder, which gets ``checkpoints``, ``tensorboard``, ``configs`` and ``metrics.jsonl``.
        on_epoch_end: Called for each epoch after its checkpoint is saved; after an interruption, first called again for
            the earlier epochs.
        should_prune: Called with the epoch number after each epoch, unless the training ends there anyway; True ends
            the training as ``pruned``. After an interruption, it is called again for the last finished epoch.
        on_batch: Called with the number of finished batches and the number of batches in the epoch, before the first
            batch and after each batch.
        before_save: Called before the results of an epoch are saved; exceptions that it raises propagate.
        on_plots: Called with plots of the training run, occasionally during the run and once at its end.

    Raises:
        ConfigurationError, ModelCreationError: See `TrainingState.create`.
        MemoryExhaustedError: There is not enough memory even for a micro-batch of one image.
    """
    training = TrainingState.create(config, steps_per_epoch=len(data.train))
    if training.device.type == "cpu":
        keep_freed_memory()
    checkpoints = CheckpointFolder(checkpoint_dir(folder), config)
    _restore(training, checkpoints)
    write_config(folder, config)
    recorder = Recorder(folder, config, training.history, parameters=count_parameters(training.model))
    plot_updates = PlotUpdates(data.val.split, checkpoints.best)
    process_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(config.threads or process_threads)
        _log_start(training, data)
        for finished in _replay(training):
            on_epoch_end(*finished)
        try:
            while (why_ended := _reason_to_end(training, should_prune)) is None:
                metrics, score = _run_epoch_within_memory(training, checkpoints, data, recorder, on_batch)
                before_save()
                _complete_epoch(training, checkpoints, data.val.split, metrics, score)
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
        best = _score_best(training, checkpoints.best, data, before_save)
        plots = plot_updates.draw(training.history)
        recorder.ended(plots, len(training.history))
        on_plots(plots)
    finally:
        torch.set_num_threads(process_threads)
        recorder.close()
    log.info("ended: %s, best epoch %d", why_ended, training.early_stopping.best_epoch)
    return TrainingResult(
        why_ended=why_ended,
        history=tuple(training.history),
        best_epoch=training.early_stopping.best_epoch,
        parameters=count_parameters(training.model),
        micro_batch_size=training.micro_batch_size,
        threads=(next(iter(training.threads)) if len(training.threads) == 1 else None) or None,
        best=best,
    )


def _replay(training: TrainingState) -> Iterator[tuple[EpochMetrics, EarlyStopping]]:
    """Yield each epoch before an interruption, with the early stopping state after that epoch."""
    early_stopping = EarlyStopping.of(training.config)
    for metrics in training.history:
        early_stopping.update(metrics.epoch, metrics.value(training.config.early_stopping_monitor))
        yield metrics, early_stopping


def _reason_to_end(training: TrainingState, should_prune: ShouldPrune) -> str | None:
    """Return why training ends after the finished epochs; None if training continues."""
    epochs = len(training.history)
    if epochs and training.early_stopping.should_stop:
        return "early_stopped"
    if epochs >= training.config.num_epochs:
        return "max_epochs"
    return "pruned" if epochs and should_prune(epochs) else None


def _run_epoch_within_memory(
    training: TrainingState, checkpoints: CheckpointFolder, data: TrainingData, recorder: Recorder, on_batch: OnBatch
) -> tuple[EpochMetrics, SplitScore]:
    """Train and validate the next epoch; restart the epoch with smaller micro-batches if memory runs out."""
    while True:
        try:
            return run_epoch(training, data, recorder, on_batch)
        except MemoryExhaustedError as error:
            if error.micro_batch_size == 1:
                raise
            too_large, reason = error.micro_batch_size, str(error)
        # Outside the handler, because the error references the frames and thus the tensors of the failed pass.
        training.weights.zero_grad()
        release_freed_memory()
        state = (
            checkpoints.load_last()
            or TrainingState.create(training.config, steps_per_epoch=len(data.train)).state_dict()
        )
        training.load_state_dict(state)
        recorder.discard_unfinished_epoch(training.history)
        _halve_micro_batch(training, too_large, reason)


def _halve_micro_batch(training: TrainingState, size: int, reason: str) -> None:
    """Set the micro-batch size to half of `size`; a batch still takes one optimizer step."""
    training.micro_batch_size = max(1, size // 2)
    log.warning(
        f"epoch {len(training.history) + 1}: {reason}; using a micro-batch size of {training.micro_batch_size}, with "
        f"gradients accumulated over batches of {training.config.batch_size} images"
    )


def _complete_epoch(
    training: TrainingState, checkpoints: CheckpointFolder, val: CachedSplit, metrics: EpochMetrics, score: SplitScore
) -> None:
    """Update the schedule, early stopping and history after an epoch, then save the checkpoints."""
    monitored = metrics.value(training.config.early_stopping_monitor)
    step_scheduler(training.scheduler, monitored)
    improved = training.early_stopping.update(metrics.epoch, monitored)
    training.history.append(metrics)
    if training.device.type == "cpu":
        training.threads.add(torch.get_num_threads())
    if improved:
        save_checkpoint(checkpoints.best, best_state(training, val, metrics, score))
    checkpoints.save_epoch(metrics.epoch, training.state_dict())


def best_state(training: TrainingState, val: CachedSplit, metrics: EpochMetrics, score: SplitScore) -> dict[str, Any]:
    """Return the content of ``best.pt``: the weights, and the data to build the network and to assess its readings.

    The readings, labels and statistics of the validation images are included, because plots and the out-of-distribution
    detector need these data even if the dataset no longer exists.
    """
    images = {"labels": val.labels, "aspect_ratios": val.aspect_ratios, "image_statistics": val.image_statistics}
    readings = {"rows": score.rows, "confidence": score.confidence}
    return {
        "config": asdict(training.config),
        "definition": training.model.definition.model_dump(mode="json"),
        "characters": list(val.vocabulary.characters),
        "metrics": asdict(metrics),
        "model": training.ema.module.state_dict(),
        "validation": readings | {name: torch.from_numpy(array) for name, array in images.items()},
    }


def _score_best(
    training: TrainingState, best: Path, data: TrainingData, before_save: Callable[[], object]
) -> BestEpochScore:
    """Score the best epoch after training, and measure its speed for 1 % of the training time, at most one second.

    The test-time augmentation confidences of the validation images are added to ``best.pt``; this takes as long as four
    validations.
    """
    try:
        state = load_checkpoint(best)
        # The training has ended, so its last weights are not needed.
        training.ema.module.load_state_dict(state["model"])
    except (FileNotFoundError, *WRONG_CONTENT):
        return BestEpochScore()  # drawing the plots logs a warning
    unseen: tuple[float | None, float | None] = None, None
    try:
        if data.unseen is not None:
            accuracy = training.score(data.unseen).accuracy
            unseen = accuracy.character_accuracy(), accuracy.sequence_accuracy()
        confidence = training.score(data.val, distorted=True).confidence
    except MemoryExhaustedError as error:
        log.warning(f"{error}; {best.name} has no test-time augmentation confidence, so fewer readings are flagged")
    else:
        state.setdefault("validation", {})["tta_confidence"] = confidence
        before_save()
        save_checkpoint(best, state)
    seconds = min(1.0, 0.01 * sum(epoch.epoch_seconds for epoch in training.history))
    speeds = [training.reading_images_per_s(data.val, size, seconds / 2) for size in (1, 64)]
    return BestEpochScore(*unseen, best.stat().st_size, *speeds)


def _restore(training: TrainingState, checkpoints: CheckpointFolder) -> None:
    def restore(state: dict[str, Any]) -> None:
        if not training.matches(state):
            raise ValueError("its content, settings or network differ from those of this training run")
        training.load_state_dict(state)

    if can_resume(checkpoints.path):
        fresh = copy.deepcopy(training.state_dict())
        if checkpoints.load_last(restore):
            log.info(f"resuming after epoch {len(training.history)}")
            return
        training.load_state_dict(fresh)  # a damaged state may have been restored partially
    checkpoints.clear()


def _log_start(training: TrainingState, data: TrainingData) -> None:
    labels, eos = data.train.split.labels, training.loss.special.eos
    repeats = ((labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] < eos)).sum(1)
    unreadable = int((data.train.split.lengths + repeats > COLUMNS).sum())
    if unreadable and training.config.loss_type == "ctc":
        log.warning(
            f"{unreadable:,} training labels have more than {COLUMNS} characters, counting one more for each repeated "
            "neighbour; a CTC model cannot learn them; use a model with the decoder attention"
        )
    config, precision = training.config, amp_dtype(training.device) if training.use_amp else torch.float32
    log.info(
        f"training {config.experiment_name}: model {config.model_name}, {count_parameters(training.model)} parameters, "
        f"on {training.device} in {precision}, PyTorch threads: {torch.get_num_threads()}"
    )
    log.info(
        f"data: {len(data.train)} x {config.batch_size} images per epoch, read directly from the pixel cache "
        f"(num_workers {config.num_workers} has no effect), augmentation {'on' if config.augmentation else 'off'}"
    )


def _log_epoch(training: TrainingState, metrics: EpochMetrics) -> None:
    log.info(
        f"epoch {metrics.epoch}/{training.config.num_epochs}: loss {metrics.train_loss:.4f}/{metrics.val_loss:.4f}, "
        f"char {metrics.train_char_accuracy:.4f}/{metrics.val_char_accuracy:.4f}, "
        f"seq {metrics.train_seq_accuracy:.4f}/{metrics.val_seq_accuracy:.4f} (train/val), "
        f"lr {metrics.learning_rate:.2e}, {metrics.epoch_seconds:.1f} s"
    )
