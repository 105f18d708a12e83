"""The outcome of a trial that was trained, raised an error, or crashed too often."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace

from search_spaces import Targets
from studies import TrialOutcome, TrialRecord, WhyEnded
from tuner.training.device import is_out_of_memory
from tuner.training.history import EpochMetrics, TrainingResult


def outcome_of_result(result: TrainingResult, targets: Targets) -> TrialOutcome:
    """Return the outcome of a trial whose training ended without an error."""
    diverged = result.why_ended == "nonfinite_loss"
    return replace(
        _outcome(result.history, WhyEnded(result.why_ended)),
        best_epoch=result.best_epoch or None,
        converged_epoch=_converged_epoch(result.history, targets),
        micro_batch_size=result.micro_batch_size,
        parameters=result.parameters,
        threads=result.threads,
        **asdict(result.best),
        error_message="the loss is infinite or not a number; use a lower learning_rate" if diverged else "",
    )


def outcome_of_error(error: Exception, epochs: Sequence[EpochMetrics]) -> TrialOutcome:
    """Return the outcome of a trial whose training raised an error after `epochs`."""
    why = WhyEnded.OUT_OF_MEMORY if is_out_of_memory(error) else WhyEnded.FAILED
    kind = type(error).__name__
    remedy = "; use a smaller model or fewer workers" if why is WhyEnded.OUT_OF_MEMORY else ""
    return replace(_outcome(epochs, why), error_type=kind, error_message=(str(error) or kind) + remedy)


def outcome_of_crashes(record: TrialRecord, epochs: Sequence[EpochMetrics]) -> TrialOutcome:
    """Return the outcome of a trial that failed because too many processes in a row crashed while training it.

    Args:
        record: The trial as stored in the study, possibly with more epochs than `epochs`: the epochs of another machine
            with its own output folder.
        epochs: The trial's finished epochs in this machine's output folder.
    """
    reported = record.attempts[-1].epochs
    has_more_epochs = reported > len(epochs)
    where = f"before epoch {reported + 1} was finished" if has_more_epochs else f"in epoch {len(epochs) + 1}"
    event = f"{record.consecutive_crashes} processes in a row were killed"
    message = f"{event} {where}; look for the cause in the system log"
    if has_more_epochs:
        message += f"; the metrics of epochs 1 to {reported} are in another machine's output folder"
    outcome = _outcome(epochs, WhyEnded.CRASHED)
    return replace(outcome, total_epochs=max(reported, len(epochs)), error_message=message)


def _outcome(epochs: Sequence[EpochMetrics], why: WhyEnded) -> TrialOutcome:
    return TrialOutcome(
        why_ended=why,
        training_time_s=sum(epoch.epoch_seconds for epoch in epochs),
        best_val_char_accuracy=max((epoch.val_char_accuracy for epoch in epochs), default=0.0),
        best_val_seq_accuracy=max((epoch.val_seq_accuracy for epoch in epochs), default=0.0),
        final_train_loss=epochs[-1].train_loss if epochs else None,
        total_epochs=len(epochs),
        best_epoch=None,
        epoch_seconds_median=statistics.median(epoch.epoch_seconds for epoch in epochs) if epochs else None,
    )


def _converged_epoch(epochs: Sequence[EpochMetrics], targets: Targets) -> int | None:
    """Return the first epoch that meets the accuracy targets; None if no epoch does or no accuracy target is set."""
    if targets.character_accuracy is None and targets.sequence_accuracy is None:
        return None
    for epoch in epochs:
        characters = epoch.val_char_accuracy >= (targets.character_accuracy or 0.0)
        if characters and epoch.val_seq_accuracy >= (targets.sequence_accuracy or 0.0):
            return epoch.epoch
    return None
