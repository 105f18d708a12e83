"""Rules about combinations of keys in an experiment and combinations of experiments in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import yaml

from search_spaces.diagnostics.diagnostics import Diagnostics, describe, suggest
from search_spaces.diagnostics.plural import listed
from search_spaces.errors import ConfigurationError
from search_spaces.experiments.schema import KEY_OF_FIELD, Experiment
from search_spaces.experiments.warnings import warn_of_experiment
from search_spaces.model_definitions import ModelDefinition, load_model_definitions
from search_spaces.training_config import STUDY_FIELDS

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
