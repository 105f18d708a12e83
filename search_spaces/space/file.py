"""Search space files: ranges and choices for fields of `TrainingConfig`, and fixed settings of the search trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces.diagnostics.diagnostics import Diagnostics, suggest
from search_spaces.errors import ConfigurationError
from search_spaces.experiments.schema import KEY_OF_FIELD
from search_spaces.model_definitions import ModelDefinition
from search_spaces.space.checks import check_space
from search_spaces.space.parser import EXAMPLE, SpaceParser
from search_spaces.space.space import SearchSpace
from search_spaces.space.warnings import warn_of_space
from search_spaces.yaml_reader.file import YamlDocument, load_yaml, resolve_config_path

SHIPPED_SPACE = "config/search_space.yaml"  # the default of a study


def load_search_space(path: str | Path, definitions: Mapping[str, ModelDefinition] | None = None) -> SearchSpace:
    """Read and check a search space file.

    Args:
        path: The file, in the working directory or in this package.
        definitions: The defined models, to check the models of the space and their losses; None skips these checks.

    Raises:
        FileNotFoundError: If the file does not exist.
        yaml.YAMLError: If it is not YAML; the message has file, line and column.
        ConfigurationError: If it has errors; all problems are reported together, each with line and key.
    """
    document = load_yaml(resolve_config_path(path))
    return parse_search_space(document.data, document, definitions)


def parse_search_space(
    data: dict[str, Any], document: YamlDocument | None = None, definitions: Mapping[str, ModelDefinition] | None = None
) -> SearchSpace:
    """Return the search space of plain data, for example from `SearchSpace.as_dict`, after checking it.

    Args:
        data: The mappings ``space`` and (optional) ``base``.
        document: The file of the data, for file and line in messages.
        definitions: As for `load_search_space`.

    Raises:
        ConfigurationError: If it has errors; all problems are reported together.
    """
    if not isinstance(data, dict):
        raise ConfigurationError(f"a search space is a mapping, not {type(data).__name__}; {EXAMPLE}")
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
    """Check that further settings can be fixed for the trials of a search space.

    Args:
        space: The search space.
        fixed: Values of fields of `TrainingConfig`, each valid by itself.
        definitions: The defined models.

    Raises:
        ConfigurationError: If the space samples a setting or conflicts with it; all problems are reported together.
    """
    remedy = "leave it out, or start another study with a --space that does not sample it"
    problems = [
        f"--set {'.'.join(KEY_OF_FIELD[item.name])}: the search samples it ({item.domain}); {remedy}"
        for item in space
        if item.name in fixed
    ]
    if problems:
        raise ConfigurationError(problems)
    if fixed:
        parse_search_space({**space.as_dict(), "base": {**space.base, **fixed}}, definitions=definitions)


def default_search_space(definitions: Mapping[str, ModelDefinition]) -> SearchSpace:
    """Return the default search space; its models are replaced by those of the study if some are not defined there.

    Args:
        definitions: The models that the study can train, at least one.
    """
    document = load_yaml(resolve_config_path(SHIPPED_SPACE))
    data = document.data
    if not definitions.keys() >= set(data["space"]["model_name"]):
        data["space"] = _with_models(data["space"], definitions)
    return parse_search_space(data, document, definitions)


def _with_models(space: Mapping[str, Any], definitions: Mapping[str, ModelDefinition]) -> dict[str, Any]:
    """Return the parameters with other models; the loss is sampled for models that support several losses."""
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
        return "this looks like an experiments file, which goes to --config"
    return f"indent {key} below space:" if key in KEY_OF_FIELD else suggest(key, ("base", "space"))
