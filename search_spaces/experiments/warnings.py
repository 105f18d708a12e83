"""Warnings about valid settings of an experiment that have no effect or are probably a mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from search_spaces.diagnostics.diagnostics import Diagnostics, Location, describe
from search_spaces.diagnostics.plural import counted
from search_spaces.experiments.schema import ONLY_FOR, Experiment, Targets
from search_spaces.training_config import TrainingConfig

_HIGH_LEARNING_RATE = 0.1

_IsValid = Callable[..., bool]
_Warnings = Iterator[tuple[Location, str]]


def warn_of_experiment(experiment: Experiment, diagnostics: Diagnostics) -> None:
    """Record warnings about one experiment.

    Rules that involve an invalid key are skipped.

    Args:
        experiment: The experiment, with defaults instead of invalid values.
        diagnostics: Collects the warnings; paths start at the experiment.
    """
    rules = (_rate, _overrides, _unused_keys, _loaders, _early_stopping, _schedule, _snapshots, _constant_rate, _mode)
    for key, text in chain.from_iterable(rule(experiment, diagnostics.is_valid) for rule in rules):
        diagnostics.warning(key, text)


def warn_of_targets(targets: Targets, diagnostics: Diagnostics) -> None:
    """Record warnings about targets that can never be met."""
    accuracies = (targets.character_accuracy, targets.sequence_accuracy)
    if targets.convergence_epochs is not None and accuracies == (None, None):
        text = "can never be met without character_accuracy or sequence_accuracy, which define convergence"
        diagnostics.warning("targets.convergence_epochs", text)


def _rate(experiment: Experiment, is_valid: _IsValid) -> _Warnings:
    key, rate = experiment.learning_rate
    if is_valid(key) and rate > _HIGH_LEARNING_RATE:
        yield key, f"{rate} is far above usual learning rates (0.0001 to 0.01), so training may diverge"


def _overrides(experiment: Experiment, is_valid: _IsValid) -> _Warnings:
    for key in ("learning_rate", "weight_decay"):
        ignored, used = experiment.value("training", key), experiment.value("optimizer", key)
        if experiment.is_set("training", key) and experiment.is_set("optimizer", key) and ignored != used:
            yield ("training", key), f"{ignored} has no effect: optimizer.{key} ({used}) overrides it"


def _unused_keys(experiment: Experiment, is_valid: _IsValid) -> _Warnings:
    for (section, key), (owner, kind, needed) in ONLY_FOR.items():
        actual = experiment.value(owner, kind)
        is_set = experiment.is_set(section, key) and (key != "label_smoothing" or experiment.value(section, key) > 0)
        if is_set and actual != needed and is_valid((owner, kind)):
            yield (section, key), f"has no effect with {owner}.{kind} {actual}, only with {needed}"


def _loaders(experiment: Experiment, is_valid: _IsValid) -> _Warnings:
    for key in ("num_workers", "pin_memory"):
        value = experiment.value("data", key)
        # No warning for the default, nor for 0 and false: training uses neither loader processes nor pinned memory.
        if experiment.is_set("data", key) and value not in (0, getattr(TrainingConfig, key)):
            text = "has no effect on training, which reads the pixel cache; only create_data_loaders uses it"
            yield ("data", key), f"{describe(value)} {text}"


def _early_stopping(experiment: Experiment, is_valid: _IsValid) -> _Warnings:
    if not is_valid("training.num_epochs"):
        return
    epochs, stopping = experiment.training.num_epochs, experiment.early_stopping
    # The first epoch always counts as an improvement.
    if "patience" in stopping.model_fields_set and stopping.patience + 1 >= epochs:
        length = counted(epochs, "epoch")
        text = f"{stopping.patience} has no effect: training ends after {length}, before it can stop early"
        yield "early_stopping.patience", text
    if stopping.min_delta >= 1 and stopping.monitor.endswith("accuracy"):
        text = f"{stopping.min_delta} is more than an accuracy can improve, so training always ends after"
        yield "early_stopping.min_delta", f"{text} {counted(min(epochs, stopping.patience + 1), 'epoch')}"


def _schedule(experiment: Experiment, is_valid: _IsValid) -> _Warnings:
    if not is_valid("training.num_epochs"):
        return
    epochs, scheduler, stopping = experiment.training.num_epochs, experiment.scheduler, experiment.early_stopping
    length = counted(epochs, "epoch")
    if scheduler.type == "cosine" and scheduler.warmup_epochs >= epochs:
        text = f"{scheduler.warmup_epochs} is too long for {length}: training ends before the cosine starts"
        yield "scheduler.warmup_epochs", text
    is_chosen = scheduler.model_fields_set & {"type", "step_size", "gamma"}
    if scheduler.type == "steplr" and scheduler.step_size >= epochs and is_chosen:
        text = f"{scheduler.step_size} is too long for {length}: training ends before gamma has an effect"
        yield "scheduler.step_size", text
    if scheduler.type != "plateau" or not is_valid("scheduler.patience", "early_stopping.patience"):
        return
    # The first epoch counts as an improvement. After `patience` + 1 epochs without improvement, the rate is lower.
    patience = scheduler.patience
    if patience + 2 >= epochs:
        text = f"{patience} is too long for {length}: training ends before factor has an effect"
        yield "scheduler.patience", text
    elif patience + 1 >= stopping.patience:
        text = f"{patience} has no effect: early_stopping.patience ({stopping.patience}) ends training first"
        yield "scheduler.patience", text


def _snapshots(experiment: Experiment, is_valid: _IsValid) -> _Warnings:
    epochs, every = experiment.training.num_epochs, experiment.training.save_every_n_epochs
    if is_valid("training.num_epochs") and experiment.is_set("training", "save_every_n_epochs") and every > epochs:
        text = f"{every} is more than num_epochs ({epochs}), so no numbered snapshot is written"
        yield "training.save_every_n_epochs", text


def _constant_rate(experiment: Experiment, is_valid: _IsValid) -> _Warnings:
    scheduler, (key, rate) = experiment.scheduler, experiment.learning_rate
    if not is_valid("scheduler.min_lr", "scheduler.type", key):
        return
    if scheduler.min_lr == rate:
        text = f"{scheduler.min_lr} is also the initial learning rate ({key}), so the schedule has no effect"
        yield "scheduler.min_lr", text
    elif scheduler.type == "steplr" and scheduler.gamma == 1:
        yield "scheduler.gamma", "1 never changes the learning rate, so the schedule has no effect"


def _mode(experiment: Experiment, is_valid: _IsValid) -> _Warnings:
    mode, monitor = experiment.early_stopping.mode, experiment.early_stopping.monitor
    usual, better = ("min", "lower") if monitor.endswith("loss") else ("max", "higher")
    if is_valid("early_stopping.monitor", "early_stopping.mode") and mode != usual:
        text = f"{mode} would keep the worst epoch, because {better} {monitor} is better; did you mean {usual!r}?"
        yield "early_stopping.mode", text
