"""Experiments files and dictionaries: validation, conversion to training configurations and back to text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from search_spaces.diagnostics.diagnostics import Diagnostics, nearest, other_kind, suggest
from search_spaces.diagnostics.names import name_problem
from search_spaces.diagnostics.validation import validated
from search_spaces.errors import ConfigurationError
from search_spaces.experiments.checks import ModelFiles, check_agreement, check_experiment, warn_of_targets
from search_spaces.experiments.schema import (
    FIELD_OF_KEY,
    KEY_LOCATIONS,
    KEY_OF_FIELD,
    ONLY_FOR,
    SECTIONS,
    Experiment,
    Targets,
    settings_by_field,
)
from search_spaces.training_config import DATASET_FIELDS, TrainingConfig
from search_spaces.yaml_reader.file import PACKAGE_FOLDER, YamlDocument, load_yaml, resolve_config_path
from search_spaces.yaml_reader.nodes import yaml_text

_TOP_KEYS = ("experiments", "targets")


class StatedSize(NamedTuple):
    """A vocabulary size that an experiment states although the dataset determines it.

    Attributes:
        experiment: The name of the experiment.
        field: ``vocab_size`` or ``max_sequence_length``.
        value: The stated value.
        location: File, line and key, for messages.
    """

    experiment: str
    field: str
    value: int
    location: str


@dataclass(frozen=True)
class ExperimentFile:
    """A validated experiments file.

    Attributes:
        path: The file; None if the configuration was passed as a dictionary.
        config: The whole configuration as mappings, lists and scalars.
        experiments: The training configurations, keyed by experiment name, in the file's order.
        targets: The targets that trials should meet.
        warnings: Messages about valid settings that have no effect or are probably a mistake.
        notes: Messages about unused keys.
        stated_sizes: The vocabulary sizes in the file, which must agree with the dataset.
    """

    path: Path | None
    config: dict[str, Any]
    experiments: dict[str, TrainingConfig]
    targets: Targets
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    stated_sizes: tuple[StatedSize, ...] = ()

    @property
    def messages(self) -> tuple[str, ...]:
        """The warnings, then the notes, one line each; a line starts with ``warning:`` or ``note:``."""
        return (*(f"warning: {text}" for text in self.warnings), *(f"note: {text}" for text in self.notes))

    @property
    def names_dataset(self) -> bool:
        """Whether an experiment sets ``metadata_path``; a missing dataset is generated only at the default path."""
        entries = self.config["experiments"].values()
        return any("metadata_path" in ((entry or {}).get("data") or {}) for entry in entries)

    def select(self, names: Sequence[str] | None) -> dict[str, TrainingConfig]:
        """Return the experiments with these names, keyed by name, in the file's order; all if `names` is None.

        Raises:
            ConfigurationError: A name is not in the file; the message suggests a similar name.
        """
        if names is None:
            return dict(self.experiments)
        wanted = dict.fromkeys([names] if isinstance(names, str) else names)
        file = "" if self.path is None else f"{self.path}: "
        problems = [
            f"{file}experiments: found no experiment {name!r}; {suggest(name, self.experiments)}"
            for name in wanted
            if name not in self.experiments
        ]
        if problems:
            raise ConfigurationError(problems)
        return {name: config for name, config in self.experiments.items() if name in wanted}


def load_experiments(path: str | Path) -> ExperimentFile:
    """Read and validate an experiments file.

    Args:
        path: The file, in the working directory or in this package.

    Raises:
        FileNotFoundError: The file does not exist.
        yaml.YAMLError: The file is not YAML; the message has file, line and column.
        ConfigurationError: The file has errors; all problems are reported together, each with line and key.
    """
    document = load_yaml(resolve_config_path(path))
    file = parse_experiments(document.data, document)
    for name, entry in file.config["experiments"].items():  # `config` must not depend on the file's folder
        if "config_path" in entry.get("model", {}):
            entry["model"] = {**entry["model"], "config_path": file.experiments[name].model_config_path}
    return file


def parse_experiments(config: dict[str, Any], document: YamlDocument | None = None) -> ExperimentFile:
    """Validate a configuration and create the training configurations of its experiments.

    Args:
        config: The configuration as mappings, lists and scalars.
        document: The file of the configuration, for file and line in messages; None for a dictionary.

    Raises:
        ConfigurationError: The configuration has errors; all problems are reported together.
    """
    if not isinstance(config, dict):
        raise ConfigurationError(f"configuration: found the type {type(config).__name__}; expected a dict; {_EXAMPLE}")
    diagnostics = Diagnostics(document or YamlDocument(config))
    _note_unused_keys(config, diagnostics)
    targets = validated(Targets, config.get("targets", {}), diagnostics.below("targets")) or Targets()
    experiments = _experiments(config, diagnostics)
    models: ModelFiles = {}
    for name, experiment in experiments.items():
        check_experiment(experiment, diagnostics.below("experiments", name), models)
    check_agreement(experiments, diagnostics)
    warn_of_targets(targets, diagnostics)
    diagnostics.raise_errors()
    return ExperimentFile(
        path=document.path if document else None,
        config=config,
        experiments={name: _training_config(name, item, diagnostics.file) for name, item in experiments.items()},
        targets=targets,
        warnings=diagnostics.warnings,
        notes=diagnostics.notes,
        stated_sizes=tuple(_stated_sizes(experiments, diagnostics)),
    )


def _stated_sizes(experiments: Mapping[str, Experiment], diagnostics: Diagnostics) -> Iterator[StatedSize]:
    for name, experiment in experiments.items():
        for key in DATASET_FIELDS:
            if experiment.is_set("model", key):
                location = diagnostics.location(("experiments", name, "model", key))
                yield StatedSize(name, key, experiment.value("model", key), location)


def create_training_config(experiment_config: dict[str, Any]) -> TrainingConfig:
    """Validate the sections of one experiment and create its training configuration.

    Numbers such as ``'1e-6'``, which PyYAML's loaders read as text, are converted. Missing keys have
    `TrainingConfig`'s defaults. ``optimizer.learning_rate`` and ``optimizer.weight_decay`` override
    ``training.learning_rate`` and ``training.weight_decay``.

    Args:
        experiment_config: The sections of an experiment, as below its name in an experiments file.

    Raises:
        ConfigurationError: A section has errors; all problems are reported together.

    Example::

        from tuner import create_training_config

        sections = {"model": {"name": "small"}, "training": {"batch_size": 64, "learning_rate": "2e-3"}}
        config = create_training_config(sections)
        print(config.model_name, config.batch_size, config.learning_rate)
    """
    diagnostics = Diagnostics(YamlDocument({}))
    experiment = validated(Experiment, experiment_config, diagnostics, KEY_LOCATIONS) or Experiment()
    name = experiment.experiment_name
    if name is not None and (problem := name_problem(name)):
        diagnostics.error("experiment_name", f"found {name!r}; {problem}")
    check_experiment(experiment, diagnostics, models={})
    diagnostics.raise_errors()
    return _training_config(name or TrainingConfig.experiment_name, experiment)


def _note_unused_keys(config: Mapping[Any, Any], diagnostics: Diagnostics) -> None:
    for key in config:
        if key not in _TOP_KEYS:
            near = nearest(key, _TOP_KEYS)
            diagnostics.note((str(key),), f"not used{f'; did you mean {near!r}?' if near else ''}")


_EXAMPLE = "use, for example, 'experiments: {my_experiment: {model: {name: small}}}'"


def _experiments(config: Mapping[str, Any], diagnostics: Diagnostics) -> dict[str, Experiment]:
    """Return the experiments, keyed by name, with defaults instead of invalid values."""
    rule = "expected a mapping of experiment names to settings"
    if "experiments" not in config:
        diagnostics.missing("experiments", rule, _missing_remedy(config))
        return {}
    entries = config["experiments"]
    if not isinstance(entries, dict) or not entries:
        diagnostics.invalid_value("experiments", entries, rule, _empty_remedy(config))
        return {}
    experiments = {}
    for name, data in entries.items():
        inner = diagnostics.below("experiments", str(name))
        experiment = validated(Experiment, data, inner, KEY_LOCATIONS)
        _check_name(name, experiment, inner)
        if experiment is not None:
            experiments[str(name)] = experiment
    _check_clashes(experiments, diagnostics)
    return experiments


def _missing_remedy(config: Mapping[str, Any]) -> str:
    if remedy := other_kind(config, "experiments"):
        return remedy
    if any(section in config for section in SECTIONS):
        return "indent the sections below a name of your choice, and the name below 'experiments'"
    near = nearest("experiments", [str(key) for key in config])
    return f"found the key {near!r}: did you mean 'experiments'?" if near else _EXAMPLE


def _empty_remedy(config: Mapping[str, Any]) -> str:
    misindented = next((key for key in config if isinstance(key, str) and key[:1].isspace()), None)
    if misindented is not None:  # for example non-breaking spaces, copied from a web page
        return f"the key {misindented.strip()!r} is indented with {misindented[0]!a}; indent it with spaces"
    return _EXAMPLE


def _check_name(name: object, experiment: Experiment | None, diagnostics: Diagnostics) -> None:
    if problem := name_problem(name):
        diagnostics.error((), problem)
    inner = experiment.experiment_name if experiment else None
    if inner is not None and inner != name:
        rule = f"expected {name!r}, the key of this experiment"
        diagnostics.invalid_value("experiment_name", inner, rule, f"use {name!r} or remove this line")


def _check_clashes(names: Iterable[str], diagnostics: Diagnostics) -> None:
    """Record names that differ only in case: some file systems (macOS) ignore case, so both would get one folder."""
    first_of: dict[str, str] = {}
    for name in names:
        first = first_of.setdefault(name.casefold(), name)
        if first != name:
            text = f"the name differs from {first!r} only in case, so both may get the same folder; choose another name"
            diagnostics.error(("experiments", name), text)


def _training_config(name: str, experiment: Experiment, file: Path | None = None) -> TrainingConfig:
    settings = settings_by_field(experiment.model_dump(exclude_unset=True))
    models = resolve_config_path(experiment.model.config_path, file)
    if models.is_absolute() and not models.is_relative_to(PACKAGE_FOLDER):  # later, the file's folder is unknown
        settings["model_config_path"] = str(models)
    return TrainingConfig(**settings, experiment_name=name)


def experiments_data(experiments: Mapping[str, TrainingConfig], targets: Targets) -> dict[str, Any]:
    """Return data that `parse_experiments` converts back to configurations with the same training results.

    Defaults are included, because a later version may have other defaults. Keys without effect are omitted, such as
    `gamma` if another schedule is used, and so are `DATASET_FIELDS`, so that the experiments can use another dataset.

    Args:
        experiments: The training configurations, keyed by experiment name.
        targets: The targets that trials should meet.
    """
    data: dict[str, Any] = {"experiments": {name: _sections(config) for name, config in experiments.items()}}
    wanted = targets.model_dump(mode="json", exclude_none=True)
    return data | ({"targets": wanted} if wanted else {})


def experiments_yaml(experiments: Mapping[str, TrainingConfig], targets: Targets) -> str:
    """Format `experiments_data` as YAML with one line per key."""
    return yaml_text(experiments_data(experiments, targets), block_style=True)


def _sections(config: TrainingConfig) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for (section, key), field in FIELD_OF_KEY.items():
        # The learning rate has two keys; training.learning_rate is sufficient.
        if KEY_OF_FIELD[field] == (section, key) and _has_effect(section, key, config):
            value = getattr(config, field)
            sections[section][key] = list(value) if isinstance(value, tuple) else value
    return sections


def _has_effect(section: str, key: str, config: TrainingConfig) -> bool:
    if key in DATASET_FIELDS:
        return False
    if (section, key) not in ONLY_FOR:
        return getattr(config, FIELD_OF_KEY[section, key]) is not None
    owner, kind, needed = ONLY_FOR[section, key]
    return bool(getattr(config, FIELD_OF_KEY[owner, kind]) == needed)
