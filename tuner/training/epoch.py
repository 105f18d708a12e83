"""The training and validation of one epoch, and a single training step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from tuner.data.batches import Batch, SplitBatches, TrainingData, split_batch
from tuner.training.device import out_of_memory_as_exhausted, peak_gpu_memory_mib
from tuner.training.history import EpochMetrics
from tuner.training.recorder import Recorder
from tuner.training.training_state import TrainingState
from tuner.training.validation import Accuracy, SplitScore

OnBatch = Callable[[int, int], None]


class NonFiniteLossError(Exception):
    """The loss is infinite or not a number."""


def run_epoch(
    training: TrainingState, data: TrainingData, recorder: Recorder, on_batch: OnBatch
) -> tuple[EpochMetrics, SplitScore]:
    """Train and validate the next epoch; return its metrics and the validation readings.

    Raises:
        MemoryExhaustedError: There is not enough memory for a micro-batch.
        NonFiniteLossError: The loss is infinite or not a number.
    """
    started = time.perf_counter()
    epoch = len(training.history) + 1
    learning_rate = training.learning_rate
    with out_of_memory_as_exhausted(training.micro_batch_size_for(data.train)):
        train_loss, train_accuracy = train_epoch(training, data.train, recorder, epoch, on_batch)
    score = training.score(data.val)
    if not math.isfinite(score.loss):
        raise NonFiniteLossError(
            f"epoch {epoch}: found validation loss {score.loss}; expected a finite number; use a lower learning_rate"
        )
    memory_mb, cpu_percent = recorder.system_use()
    metrics = EpochMetrics(
        epoch=epoch,
        train_loss=train_loss,
        val_loss=score.loss,
        train_char_accuracy=train_accuracy.character_accuracy(),
        val_char_accuracy=score.accuracy.character_accuracy(),
        train_seq_accuracy=train_accuracy.sequence_accuracy(),
        val_seq_accuracy=score.accuracy.sequence_accuracy(),
        learning_rate=learning_rate,
        epoch_seconds=time.perf_counter() - started,
        memory_mb=memory_mb,
        cpu_percent=cpu_percent,
        gpu_memory_mb=peak_gpu_memory_mib(training.device),
    )
    return metrics, score


def train_epoch(
    training: TrainingState, batches: SplitBatches, recorder: Recorder, epoch: int, on_batch: OnBatch
) -> tuple[float, Accuracy]:
    """Train one epoch with one optimizer step per batch; return the mean training loss and the accuracy."""
    training.model.train()
    total, count = torch.zeros((), device=training.device), torch.zeros((), device=training.device)
    rows, truth = [], []
    steps_before = (epoch - 1) * len(batches)
    on_batch(0, len(batches))
    for step, (images, labels) in enumerate(batches.epoch(epoch), start=1):
        with _warm_up(training, epoch, step / len(batches)):
            learning_rate = training.learning_rate
            loss, scores = train_step(training, (images, labels))
        weight = training.loss.count(labels)
        total, count = total + loss * weight, count + weight
        rows.append(training.model.read(scores))
        truth.append(labels)
        if step % training.config.log_every_n_steps == 0 or step == len(batches):
            # The loop synchronises with the device only here (and in the CTC loss, which needs lengths on the CPU).
            if not math.isfinite(float(total)):
                raise NonFiniteLossError(
                    f"epoch {epoch}, step {step}: found training loss {float(total)}; expected a finite number; "
                    "use a lower learning_rate"
                )
            recorder.step(steps_before + step, float(loss), learning_rate)
        on_batch(step, len(batches))
    accuracy = Accuracy(training.loss.special.pad)
    accuracy.update(torch.cat(rows), torch.cat(truth))
    return float(total / count), accuracy


@contextmanager
def _warm_up(training: TrainingState, epoch: int, fraction: float) -> Iterator[None]:
    """Use the warm-up learning rate within a ``with`` block that takes one step.

    In a warm-up epoch, the rate rises linearly per step and reaches the scheduled rate at the end of the epoch; it is
    never below `min_lr`. A schedule without a warm-up also starts with such an epoch. Otherwise Adam's first steps are
    as large as later ones although they are based on few gradients, and at a high rate some runs then learned only half
    as fast (Ma and Yarats 2021, "On the adequacy of untuned warmup for adaptive optimization"). `fraction` is the
    fraction of the epoch that is finished after the step.
    """
    config = training.config
    if epoch > max(1, config.warmup_epochs if config.scheduler_type == "cosine" else 0):
        yield
        return
    groups = training.optimizer.param_groups
    rates = [group["lr"] for group in groups]
    for group in groups:
        group["lr"] = max(config.min_lr, group["lr"] * ((epoch - 1 + fraction) / epoch))
    try:
        yield
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


def train_step(training: TrainingState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Take one optimizer step on a batch; return the loss and the scores of the batch, detached.

    The loss of each micro-batch is weighted by the micro-batch's fraction of the terms (see `LabelLoss.count`), so that
    the accumulated gradient equals the gradient of the whole batch. Only batch normalisation differs, because it
    sees one micro-batch at a time.
    """
    weight = training.loss.count(batch[1])
    losses, scores = [], []
    for images, labels in split_batch(batch, training.micro_batch_size):
        with training.autocast():
            scores.append(training.model(images))
            fraction = training.loss.count(labels) / weight
            losses.append(training.loss(scores[-1], labels) * fraction)
        torch.autograd.backward(training.scaler.scale(losses[-1]))
        losses[-1], scores[-1] = losses[-1].detach(), scores[-1].detach()
    training.weights.gather_gradient()
    if training.config.gradient_clip_norm > 0:
        training.scaler.unscale_(training.optimizer)
        torch.nn.utils.clip_grad_norm_(training.weights.values, training.config.gradient_clip_norm)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.ema.update()
    return torch.stack(losses).sum(), torch.cat(scores)
