"""The search space of a study that was given none."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from search_spaces.model_definitions import ModelDefinition
from search_spaces.space.file import parse_search_space
from search_spaces.space.space import SearchSpace
from search_spaces.yaml_reader.file import load_yaml, resolve_config_path

SHIPPED_SPACE = "config/search_space.yaml"


def default_search_space(definitions: Mapping[str, ModelDefinition]) -> SearchSpace:
    """Return the shipped search space, over the models of a study whose definitions lack some of the shipped ones.

    Args:
        definitions: The models that the study can train, at least one.
    """
    data = deepcopy(load_yaml(resolve_config_path(SHIPPED_SPACE)).data)
    if not definitions.keys() >= set(data["space"]["model_name"]):
        data["space"] = _over_models(data["space"], definitions)
    return parse_search_space(data, definitions=definitions)


def _over_models(space: Mapping[str, Any], definitions: Mapping[str, ModelDefinition]) -> dict[str, Any]:
    """Return the parameters with other models to choose from; the loss varies for those that leave a choice."""
    losses = space["loss_type"]["choices"]
    free = [name for name, definition in definitions.items() if set(losses) <= set(definition.losses)]
    loss = {"choices": losses} | ({"when": {"model_name": free}} if len(free) < len(definitions) else {})
    left_out = {"model_name"} if len(definitions) == 1 else set()
    if not free:
        left_out |= {"loss_type", "label_smoothing", "focal_gamma"}
    changed = {**space, "model_name": list(definitions), "loss_type": loss}
    return {name: entry for name, entry in changed.items() if name not in left_out}
