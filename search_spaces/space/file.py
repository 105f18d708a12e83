"""Search space files: ranges and choices for fields of `TrainingConfig`, and fixed settings of search trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces.diagnostics.diagnostics import KINDS_OF_FILES, Diagnostics, suggest
from search_spaces.errors import ConfigurationError
from search_spaces.experiments.schema import KEY_OF_FIELD
from search_spaces.model_definitions import ModelDefinition
from search_spaces.space.checks import check_space, warn_of_space
from search_spaces.space.parser import EXAMPLE, SpaceParser
from search_spaces.space.space import SearchSpace
from search_spaces.yaml_reader.file import YamlDocument, load_yaml, resolve_config_path

DEFAULT_SPACE = "config/search_space.yaml"


def load_search_space(path: str | Path, definitions: Mapping[str, ModelDefinition] | None = None) -> SearchSpace:
    """Read and validate a search space file.

    Args:
        path: The file, in the working directory or in this package.
        definitions: The defined models, keyed by name, to check models and loss functions; None skips these checks.

    Raises:
        FileNotFoundError: The file does not exist.
        yaml.YAMLError: The file is not YAML; the message has file, line and column.
        ConfigurationError: The file has errors; all problems are reported together, each with line and key.
    """
    document = load_yaml(resolve_config_path(path))
    return parse_search_space(document.data, document, definitions)


def parse_search_space(
    data: dict[str, Any], document: YamlDocument | None = None, definitions: Mapping[str, ModelDefinition] | None = None
) -> SearchSpace:
    """Validate the data of a search space, for example from `SearchSpace.as_dict`, and create the search space.

    Args:
        data: The mapping ``space`` and, optionally, the mapping ``base``.
        document: The file of the data, for file and line in messages; None for a dictionary.
        definitions: As for `load_search_space`.

    Raises:
        ConfigurationError: The data has errors; all problems are reported together.
    """
    if not isinstance(data, dict):
        raise ConfigurationError(f"search space: found the type {type(data).__name__}; expected a dict; {EXAMPLE}")
    diagnostics = Diagnostics(document or YamlDocument(data))
    for key in data:
        if key not in ("base", "space"):
            diagnostics.error((str(key),), f"unknown key; {_key_remedy(str(key))}")
    reader = SpaceParser(diagnostics, definitions)
    base = reader.base(data.get("base", {}))
    space = SearchSpace(tuple(reader.parameters(data, base)), base)
    check_space(space, definitions, diagnostics)
    warn_of_space(space, diagnostics)
    diagnostics.raise_errors()
    return replace(space, warnings=diagnostics.warnings)


def check_fixed(space: SearchSpace, fixed: Mapping[str, Any], definitions: Mapping[str, ModelDefinition]) -> None:
    """Check that the trials of a search space can have further fixed settings (``--set``).

    Args:
        space: The search space.
        fixed: Values of fields of `TrainingConfig`, keyed by field; each is valid by itself.
        definitions: The defined models, keyed by name.

    Raises:
        ConfigurationError: The space samples a setting or conflicts with it; all problems are reported together.
    """
    remedy = "remove this --set, or start another study with a --space that does not sample this setting"
    problems = [
        f"--set {'.'.join(KEY_OF_FIELD[item.name])}: the search samples this setting ({item.domain}); {remedy}"
        for item in space
        if item.name in fixed
    ]
    if problems:
        raise ConfigurationError(problems)
    if fixed:
        parse_search_space({**space.as_dict(), "base": {**space.base, **fixed}}, definitions=definitions)


def default_search_space(definitions: Mapping[str, ModelDefinition]) -> SearchSpace:
    """Return the default search space for a study.

    If the study does not define all models of the default search space, the study's models replace them.

    Args:
        definitions: The models that the study can train, keyed by name; at least one.
    """
    document = load_yaml(resolve_config_path(DEFAULT_SPACE))
    data = document.data
    if not definitions.keys() >= set(data["space"]["model_name"]):
        data["space"] = _with_models(data["space"], definitions)
    return parse_search_space(data, document, definitions)


def _with_models(space: Mapping[str, Any], definitions: Mapping[str, ModelDefinition]) -> dict[str, Any]:
    """Return the entries of ``space`` for other models; only models with several loss functions sample `loss_type`."""
    losses = space["loss_type"]["choices"]
    free = [name for name, definition in definitions.items() if set(losses) <= set(definition.losses)]
    loss = {"choices": losses} | ({"when": {"model_name": free}} if len(free) < len(definitions) else {})
    left_out = {"model_name"} if len(definitions) == 1 else set()
    if not free:
        left_out |= {"loss_type", "label_smoothing", "focal_gamma"}
    changed = {**space, "model_name": list(definitions), "loss_type": loss}
    return {name: entry for name, entry in changed.items() if name not in left_out}


def _key_remedy(key: str) -> str:
    if key == "experiments":
        return KINDS_OF_FILES[key]
    return f"move {key} to 'space'" if key in KEY_OF_FIELD else suggest(key, ("base", "space"))
