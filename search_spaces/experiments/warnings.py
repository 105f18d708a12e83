"""Settings of an experiment that are legal but make no sense: without effect, or hardly meant."""

from __future__ import annotations

from search_spaces.diagnostics.diagnostics import Diagnostics
from search_spaces.experiments.schema import ONLY_FOR, Experiment, Targets

_HIGH_LEARNING_RATE = 0.1


def warn_of_experiment(experiment: Experiment, diagnostics: Diagnostics) -> None:
    """Warn of senseless settings of one experiment; a rule is skipped where a key of it is invalid.

    Args:
        experiment: The experiment, with defaults in place of wrong values.
        diagnostics: Where warnings go; paths start at the experiment.
    """
    _warn_of_rate(experiment, diagnostics)
    _warn_of_overrides(experiment, diagnostics)
    _warn_of_unused_keys(experiment, diagnostics)
    if diagnostics.is_valid("training.num_epochs"):
        _warn_of_early_stopping(experiment, diagnostics)
        _warn_of_schedule(experiment, diagnostics)
        _warn_of_snapshots(experiment, diagnostics)
    _warn_of_constant_rate(experiment, diagnostics)
    _warn_of_mode(experiment, diagnostics)


def warn_of_targets(targets: Targets, diagnostics: Diagnostics) -> None:
    """Warn of targets that can never be met."""
    accuracies = (targets.character_accuracy, targets.sequence_accuracy)
    if targets.convergence_epochs is not None and accuracies == (None, None):
        text = "can never be met without character_accuracy or sequence_accuracy, which say what to converge to"
        diagnostics.warning("targets.convergence_epochs", text)


def _warn_of_rate(experiment: Experiment, diagnostics: Diagnostics) -> None:
    key, rate = experiment.learning_rate
    if diagnostics.is_valid(key) and rate > _HIGH_LEARNING_RATE:
        text = f"{rate} is far above usual rates (0.0001 to 0.01); training may not learn or diverge"
        diagnostics.warning(key, text)


def _warn_of_overrides(experiment: Experiment, diagnostics: Diagnostics) -> None:
    for key in ("learning_rate", "weight_decay"):
        if all(experiment.gives(section, key) for section in ("training", "optimizer")):
            ignored, used = getattr(experiment.training, key), getattr(experiment.optimizer, key)
            if ignored != used:
                text = f"{ignored} can never act: optimizer.{key}, {used}, wins over it"
                diagnostics.warning(("training", key), text)


def _warn_of_unused_keys(experiment: Experiment, diagnostics: Diagnostics) -> None:
    for (section, key), (owner, kind, needed) in ONLY_FOR.items():
        actual = experiment.value(owner, kind)
        is_set = experiment.gives(section, key) and (key != "label_smoothing" or experiment.value(section, key) > 0)
        if is_set and actual != needed and diagnostics.is_valid((owner, kind)):
            diagnostics.warning((section, key), f"can never act with {owner}.{kind} {actual}, only with {needed}")


def _warn_of_early_stopping(experiment: Experiment, diagnostics: Diagnostics) -> None:
    epochs, stopping = experiment.training.num_epochs, experiment.early_stopping
    # The first epoch always counts as an improvement.
    if "patience" in stopping.model_fields_set and stopping.patience + 1 >= epochs:
        text = f"{stopping.patience} of {epochs} epochs can never act: too long"
        diagnostics.warning("early_stopping.patience", text)
    if stopping.min_delta >= 1 and stopping.monitor.endswith("accuracy"):
        text = f"{stopping.min_delta} is more than an accuracy can ever gain: training always ends after"
        diagnostics.warning("early_stopping.min_delta", f"{text} {min(epochs, stopping.patience + 1)} epochs")


def _warn_of_schedule(experiment: Experiment, diagnostics: Diagnostics) -> None:
    epochs, scheduler, stopping = experiment.training.num_epochs, experiment.scheduler, experiment.early_stopping
    if scheduler.type == "cosine" and scheduler.warmup_epochs >= epochs:
        text = f"{scheduler.warmup_epochs} of {epochs} epochs never ends, so the cosine can never act"
        diagnostics.warning("scheduler.warmup_epochs", text)
    is_chosen = scheduler.model_fields_set & {"type", "step_size", "gamma"}
    if scheduler.type == "steplr" and scheduler.step_size >= epochs and is_chosen:
        text = f"{scheduler.step_size} of {epochs} epochs: the rate never drops, so gamma can never act"
        diagnostics.warning("scheduler.step_size", text)
    if scheduler.type != "plateau" or not diagnostics.is_valid("scheduler.patience", "early_stopping.patience"):
        return
    # It counts from the second epoch on, and drops the rate after one more than its patience, for the next epoch.
    if scheduler.patience + 2 >= epochs:
        text = f"{scheduler.patience} of {epochs} epochs: the rate never drops, so factor can never act"
        diagnostics.warning("scheduler.patience", text)
    elif scheduler.patience + 1 >= stopping.patience:
        text = f"can never act: early_stopping.patience, {stopping.patience}, ends the training first"
        diagnostics.warning("scheduler.patience", f"{scheduler.patience} {text}")


def _warn_of_constant_rate(experiment: Experiment, diagnostics: Diagnostics) -> None:
    scheduler = experiment.scheduler
    key, rate = experiment.learning_rate
    if not diagnostics.is_valid("scheduler.min_lr", "scheduler.type", key):
        return
    if scheduler.min_lr == rate:
        text = f"{scheduler.min_lr} is the initial rate ({key}), so the schedule can never act"
        diagnostics.warning("scheduler.min_lr", text)
    elif scheduler.type == "steplr" and scheduler.gamma == 1:
        diagnostics.warning("scheduler.gamma", "1 never changes the rate, so the schedule can never act")


def _warn_of_snapshots(experiment: Experiment, diagnostics: Diagnostics) -> None:
    training = experiment.training
    every = training.save_every_n_epochs
    if "save_every_n_epochs" in training.model_fields_set and every > training.num_epochs:
        text = f"{every} of {training.num_epochs} epochs can never act: no numbered snapshot is written"
        diagnostics.warning("training.save_every_n_epochs", text)


def _warn_of_mode(experiment: Experiment, diagnostics: Diagnostics) -> None:
    stopping = experiment.early_stopping
    usual, better = ("min", "lower") if stopping.monitor.endswith("loss") else ("max", "higher")
    if diagnostics.is_valid("early_stopping.monitor", "early_stopping.mode") and stopping.mode != usual:
        text = f"{stopping.mode}, but {better} {stopping.monitor} is better, and the worst epoch would be kept"
        diagnostics.warning("early_stopping.mode", f"{text}; {usual}?")
