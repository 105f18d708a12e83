"""Whether a trial has met the targets of its study."""

from __future__ import annotations

from search_spaces.experiments.schema import Targets
from studies.trials.record import TrialOutcome

HIGHER_IS_BETTER = frozenset({"character_accuracy", "sequence_accuracy"})
_FORMATS = {
    "character_accuracy": "{:.4f}",
    "sequence_accuracy": "{:.4f}",
    "training_time_per_epoch": "{:.1f}",
    "convergence_epochs": "{:.0f}",
}


def target_figures(outcome: TrialOutcome | None) -> dict[str, float | None]:
    """Return the figures of a trial that can have a target, by the target's name in the configuration file.

    Returns:
        Accuracies from 0 to 1, 0 without an outcome; seconds per epoch and the epoch of convergence, None if unknown.
    """
    return {
        "character_accuracy": outcome.best_val_char_accuracy if outcome else 0.0,
        "sequence_accuracy": outcome.best_val_seq_accuracy if outcome else 0.0,
        "training_time_per_epoch": outcome.epoch_seconds_median if outcome else None,
        "convergence_epochs": outcome.converged_epoch if outcome else None,
    }


def figure_text(name: str, figure: float | None) -> str:
    """Return a figure of `target_figures` as tables show it."""
    if figure is None:
        return "never" if name == "convergence_epochs" else "-"
    return _FORMATS[name].format(figure)


def target_verdicts(outcome: TrialOutcome | None, targets: Targets) -> dict[str, bool]:
    """Return whether each target that is set was met, by its name in the configuration file.

    Only a trial that succeeded meets targets.
    """
    succeeded = outcome is not None and outcome.succeeded
    figures = target_figures(outcome)
    return {name: succeeded and _is_met(name, figures[name], target) for name, target in targets if target is not None}


def targets_met(outcome: TrialOutcome | None, targets: Targets) -> bool:
    """Return whether a trial succeeded and met every target; False if none is set."""
    if outcome is None or not outcome.succeeded:
        return False
    verdicts = target_verdicts(outcome, targets)
    return bool(verdicts) and all(verdicts.values())


def _is_met(name: str, figure: float | None, target: float) -> bool:
    if figure is None:
        return False
    return figure >= target if name in HIGHER_IS_BETTER else figure <= target
