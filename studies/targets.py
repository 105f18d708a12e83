"""Whether a trial has met the targets of its study."""

from __future__ import annotations

from search_spaces.schema import Targets
from studies.trial_record import TrialOutcome


def target_verdicts(outcome: TrialOutcome | None, targets: Targets) -> dict[str, bool]:
    """Return whether each target that is set was met, by its name in the configuration file; not without an outcome."""
    char = outcome.best_val_char_accuracy if outcome else 0.0
    seq = outcome.best_val_seq_accuracy if outcome else 0.0
    verdicts = {}
    if targets.character_accuracy is not None:
        verdicts["character_accuracy"] = char >= targets.character_accuracy
    if targets.sequence_accuracy is not None:
        verdicts["sequence_accuracy"] = seq >= targets.sequence_accuracy
    if targets.training_time_per_epoch is not None:
        seconds = outcome.epoch_seconds_median if outcome else None
        verdicts["training_time_per_epoch"] = seconds is not None and seconds <= targets.training_time_per_epoch
    if targets.convergence_epochs is not None:
        epoch = outcome.converged_epoch if outcome else None
        verdicts["convergence_epochs"] = epoch is not None and epoch <= targets.convergence_epochs
    return verdicts


def targets_met(outcome: TrialOutcome | None, targets: Targets) -> bool:
    """Return whether a trial ended well and met every target; never if none is set."""
    verdicts = target_verdicts(outcome, targets)
    return outcome is not None and outcome.succeeded and bool(verdicts) and all(verdicts.values())
