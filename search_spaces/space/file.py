"""Search space files: ranges and choices over fields of `TrainingConfig`, and the base of their trials.

A study that was given none has the one in `SHIPPED_SPACE`.
"""

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

SHIPPED_SPACE = "config/search_space.yaml"


def load_search_space(path: str | Path, definitions: Mapping[str, ModelDefinition] | None = None) -> SearchSpace:
    """Read and check a search space file.

    Args:
        path: Looked up in the working directory, then in this package.
        definitions: The models that exist, to check those in the space and the losses that they would get;
            None leaves both unchecked.

    Raises:
        FileNotFoundError: If the file is in neither place.
        yaml.YAMLError: If it is not YAML; the message has file, line and column.
        ConfigurationError: If anything in it is wrong; all problems at once, each with line and key.
    """
    document = load_yaml(resolve_config_path(path))
    return parse_search_space(document.data, document, definitions)


def parse_search_space(
    data: dict[str, Any], document: YamlDocument | None = None, definitions: Mapping[str, ModelDefinition] | None = None
) -> SearchSpace:
    """Check a search space given as plain data, for example by `SearchSpace.as_dict`.

    Args:
        data: The mappings ``space`` and (optional) ``base``.
        document: The file that the data was read from; gives messages their file and line.
        definitions: As for `load_search_space`.

    Raises:
        ConfigurationError: If anything in it is wrong; all problems at once.
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
    """Check that a space can take further fixed settings of its trials into its base.

    Args:
        space: The space.
        fixed: Values of fields of `TrainingConfig`, each valid by itself.
        definitions: The models that exist.

    Raises:
        ConfigurationError: A setting varies, or does not go together with the space; all problems at once.
    """
    remedy = "leave it out, or start another study with a --space that does not vary it"
    problems = [
        f"--set {'.'.join(KEY_OF_FIELD[item.name])}: the search varies it ({item.domain}); {remedy}"
        for item in space
        if item.name in fixed
    ]
    if problems:
        raise ConfigurationError(problems)
    if fixed:
        parse_search_space({**space.as_dict(), "base": {**space.base, **fixed}}, definitions=definitions)


def default_search_space(definitions: Mapping[str, ModelDefinition]) -> SearchSpace:
    """Return the shipped search space, over the models of a study whose definitions lack some of the shipped ones.

    Args:
        definitions: The models that the study can train, at least one.
    """
    document = load_yaml(resolve_config_path(SHIPPED_SPACE))
    data = document.data
    if not definitions.keys() >= set(data["space"]["model_name"]):
        data["space"] = _with_models(data["space"], definitions)
    return parse_search_space(data, document, definitions)


def _with_models(space: Mapping[str, Any], definitions: Mapping[str, ModelDefinition]) -> dict[str, Any]:
    """Return the parameters with other models to choose from; the loss varies for those that leave a choice."""
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
