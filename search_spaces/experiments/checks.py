"""Rules about the keys of experiments, and warnings about settings that are probably a mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain

import yaml

from search_spaces.diagnostics.diagnostics import Diagnostics, Location, describe, suggest
from search_spaces.diagnostics.wording import counted, listed
from search_spaces.errors import ConfigurationError
from search_spaces.experiments.schema import KEY_OF_FIELD, ONLY_FOR, Experiment, Targets
from search_spaces.model_definitions import ModelDefinition, load_model_definitions
from search_spaces.training_config import STUDY_FIELDS, TrainingConfig

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


Definitions = Mapping[str, ModelDefinition]


# Model definitions, keyed by the path of their file; None for a file with errors.
ModelFiles = dict[str, Definitions | None]


def check_experiment(experiment: Experiment, diagnostics: Diagnostics, models: ModelFiles) -> None:
    """Record errors and warnings about combinations of keys in one experiment.

    Rules that involve an invalid key are skipped.

    Args:
        experiment: The experiment, with defaults instead of invalid values.
        diagnostics: Collects errors and warnings; paths start at the experiment.
        models: A cache of model definitions; the file that the experiment uses is added.
    """
    data = experiment.data
    if diagnostics.is_valid("data.train_split", "data.val_split") and data.train_split == data.val_split:
        key = "val_split" if "val_split" in data.model_fields_set else "train_split"
        rule = "expected different splits for training and validation"
        diagnostics.invalid_value(("data", key), data.val_split, rule, "use another split of the dataset")
    _check_model(experiment, diagnostics, models)
    floor, (key, rate) = experiment.scheduler.min_lr, experiment.learning_rate
    if diagnostics.is_valid("scheduler.min_lr", key) and floor > rate:
        rule = f"expected at most the initial learning rate ({key}: {rate})"
        diagnostics.invalid_value("scheduler.min_lr", floor, rule, f"use, for example, {rate / 1000:g}")
    warn_of_experiment(experiment, diagnostics)


def _check_model(experiment: Experiment, diagnostics: Diagnostics, models: ModelFiles) -> None:
    model = experiment.model
    if not diagnostics.is_valid("model.config_path"):
        return
    if model.config_path not in models:
        models[model.config_path] = _load(model.config_path, diagnostics)
    definitions = models[model.config_path]
    if definitions is None or not diagnostics.is_valid("model.name"):
        return
    if model.name not in definitions:
        rule = f"expected a model defined in {model.config_path}"
        diagnostics.invalid_value("model.name", model.name, rule, suggest(model.name, definitions))
    elif diagnostics.is_valid("training.loss_type"):
        _check_loss(experiment, definitions, diagnostics)


def _load(path: str, diagnostics: Diagnostics) -> Definitions | None:
    try:
        return load_model_definitions(path, diagnostics.file)
    except FileNotFoundError as error:
        diagnostics.invalid("model.config_path", str(error))
    except yaml.YAMLError as error:
        diagnostics.include([str(error)])
    except ConfigurationError as error:
        diagnostics.include(error.problems)
    return None


def _check_loss(experiment: Experiment, definitions: Definitions, diagnostics: Diagnostics) -> None:
    name, loss = experiment.model.name, experiment.training.loss_type
    supported = definitions[name].losses
    if loss in supported:
        return
    if len(supported) == 1:
        kind = supported[0].upper()
        rule = f"is a {kind} model, which supports only {kind} loss; use {supported[0]}"
    else:
        others = [other for other, definition in definitions.items() if loss in definition.losses]
        choice = f", or choose a {loss.upper()} model ({', '.join(others)})" if others else ""
        rule = f"is not a {loss.upper()} model; use {' or '.join(supported)}{choice}"
    given = _default_note(experiment, "training", "loss_type")
    diagnostics.error("training.loss_type", f"found {loss!r}{given}; the model {name!r} {rule}")


def check_agreement(experiments: Mapping[str, Experiment], diagnostics: Diagnostics) -> None:
    """Record every experiment whose dataset, metric or other setting in `STUDY_FIELDS` differs from most others.

    All experiments of a file become trials of one study, so they must have the same `STUDY_FIELDS`.
    """
    for field in STUDY_FIELDS:
        section, key = KEY_OF_FIELD[field]
        values = {
            name: experiment.value(section, key)
            for name, experiment in experiments.items()
            if diagnostics.is_valid(("experiments", name, section, key))
        }
        for name, text in _disagreements(values):
            given = _default_note(experiments[name], section, key)
            found = f"found {describe(values[name])}{given}"
            diagnostics.error(("experiments", name, section, key), f"{found}; {text}")


def _disagreements(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the name of each experiment whose value is not the most common one, with the rule and the remedy."""
    if len(set(values.values())) < 2:
        return []
    [(usual, _)] = Counter(values.values()).most_common(1)
    agreeing = [name for name, value in values.items() if value == usual]
    text = (
        "expected the same value in all experiments of a file, because they form one study; "
        f"use {describe(usual)} as in {listed(agreeing, 3)}, or another file and --output-dir for this experiment"
    )
    return [(name, text) for name, value in values.items() if value != usual]


def _default_note(experiment: Experiment, section: str, key: str) -> str:
    return "" if experiment.is_set(section, key) else " (the default)"
