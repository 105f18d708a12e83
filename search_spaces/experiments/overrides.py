"""Overrides from the command line (``--set training.num_epochs=5``), validated like an experiments file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from search_spaces.diagnostics.diagnostics import Diagnostics
from search_spaces.diagnostics.validation import validated
from search_spaces.errors import ConfigurationError, ProblemCollector
from search_spaces.experiments.file import ExperimentFile, experiments_data, parse_experiments
from search_spaces.experiments.schema import FIELD_OF_KEY, KEY_LOCATIONS, Experiment, Targets
from search_spaces.training_config import DATASET_FIELDS, STUDY_FIELDS, TrainingConfig
from search_spaces.yaml_reader.file import YamlDocument, load_yaml, resolve_config_path
from search_spaces.yaml_reader.nodes import compose, plain_data

# The new values, keyed by section, then by key.
Overrides = Mapping[str, Mapping[str, Any]]


def parse_overrides(texts: Iterable[str], *, for_trials: bool = False) -> Overrides:
    """Parse and validate the overrides of a command line.

    Args:
        texts: The overrides, each as ``section.key=value`` with a YAML value.
        for_trials: Whether the overrides are for trials of an existing study, whose `STUDY_FIELDS` and `DATASET_FIELDS`
            cannot change.

    Raises:
        ConfigurationError: An override is invalid; all problems are reported together.
    """
    problems, given = ProblemCollector(), dict[str, dict[str, Any]]()
    for text in texts:
        with problems.collect():
            section, key, value = _parsed(text)
            if key in given.setdefault(section, {}):
                problems.add([f"--set {section}.{key}: is given twice; remove one of the two"])
            given[section][key] = value
            if for_trials and FIELD_OF_KEY.get((section, key)) in (*STUDY_FIELDS, *DATASET_FIELDS):
                problems.add([f"--set {section}.{key}: is the same for the whole study; remove this --set"])
    diagnostics = Diagnostics(_CommandLine(given))
    experiment = validated(Experiment, given, diagnostics, KEY_LOCATIONS) or Experiment()
    with problems.collect():
        diagnostics.raise_errors()
    problems.raise_all()
    return experiment.model_dump(exclude_unset=True)


def load_overridden(path: str | Path, names: Sequence[str] | None, overrides: Overrides) -> ExperimentFile:
    """Read an experiments file, apply overrides to the named experiments (all if None), and validate the result.

    Raises:
        FileNotFoundError, yaml.YAMLError, ConfigurationError: As `load_experiments` and `ExperimentFile.select`.
    """
    document = load_yaml(resolve_config_path(path))
    file = parse_experiments(document.data, document)
    if not overrides:
        return file
    chosen = {name: document.data["experiments"][name] for name in file.select(names)}
    changed = _overridden({**document.data, "experiments": chosen}, overrides, document)
    # The experiments keep the order of the file.
    return replace(changed, experiments=file.experiments | changed.experiments)


def override(experiments: Mapping[str, TrainingConfig], overrides: Overrides) -> dict[str, TrainingConfig]:
    """Apply overrides to experiments and validate the result.

    Raises:
        ConfigurationError: An override conflicts with an experiment; all problems are reported together.
    """
    data = experiments_data(experiments, Targets())
    return _overridden(data, overrides, YamlDocument(data)).experiments if overrides else dict(experiments)


@dataclass(frozen=True)
class _CommandLine(YamlDocument):
    """A configuration with overrides; messages about overridden keys have the location ``--set``."""

    overrides: Overrides = field(default_factory=dict)

    def location(self, path: Sequence[str | int]) -> str:
        keys = map(str, path)
        is_set = any(key in self.overrides.get(section, {}) for section, key in pairwise(keys))
        return "--set " if is_set or self.path is None else super().location(path)


def _overridden(config: Mapping[str, Any], overrides: Overrides, document: YamlDocument) -> ExperimentFile:
    data = {
        **config,
        "experiments": {
            name: sections | {section: {**sections.get(section, {}), **keys} for section, keys in overrides.items()}
            for name, sections in config["experiments"].items()
        },
    }
    return parse_experiments(data, _CommandLine(data, document.path, document.lines, overrides=overrides))


def _parsed(text: str) -> tuple[str, str, Any]:
    name, equals, value = text.partition("=")
    section, _, key = name.strip().partition(".")
    if not (section and key and equals):
        meant = " or ".join(KEY_LOCATIONS.get(name.strip(), ())) or "a setting such as training.num_epochs=5"
        raise ConfigurationError(f"--set: found {text!r}; expected section.key=value; use {meant}")
    try:
        node = compose(value)
    except (yaml.YAMLError, RecursionError):
        rule = "expected a YAML value; put text with special characters in quotes"
        raise ConfigurationError(f"--set {section}.{key}: found {value!r}; {rule}") from None
    data, _, problems, _ = plain_data(node) if node else (None, {}, [], True)
    if problems:
        raise ConfigurationError([f"--set {section}.{key}: {problem}" for _, problem in problems])
    return section, key, data
