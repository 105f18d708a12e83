"""From training configurations to the text of an experiments file, the way back from `load_experiments`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.experiments.schema import FIELD_OF_KEY, KEY_OF_FIELD, ONLY_FOR, SECTIONS, Targets
from search_spaces.training_config import TrainingConfig
from search_spaces.yaml_reader.nodes import yaml_text


def experiments_data(experiments: Mapping[str, TrainingConfig], targets: Targets) -> dict[str, Any]:
    """Return plain data from which `parse_experiments` makes trainings that give the same results.

    Every key is there, also those at their default, since a later version may have another; but not those that have no
    effect beside the others, such as the gamma of a schedule that is not used.

    Args:
        experiments: What to train, by name.
        targets: What the experiments should reach.
    """
    data: dict[str, Any] = {"experiments": {name: _sections(config) for name, config in experiments.items()}}
    wanted = targets.model_dump(mode="json", exclude_none=True)
    return data | ({"targets": wanted} if wanted else {})


def experiments_yaml(experiments: Mapping[str, TrainingConfig], targets: Targets) -> str:
    """Return `experiments_data` as the text of a file, a line for each key."""
    return yaml_text(experiments_data(experiments, targets), block_style=True)


def _sections(config: TrainingConfig) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for (section, key), field in FIELD_OF_KEY.items():
        # A learning rate has two keys; the one under training: is enough.
        if KEY_OF_FIELD[field] == (section, key) and _has_effect(section, key, config):
            value = getattr(config, field)
            sections[section][key] = list(value) if isinstance(value, tuple) else value
    return sections


def _has_effect(section: str, key: str, config: TrainingConfig) -> bool:
    if (section, key) not in ONLY_FOR:
        return getattr(config, FIELD_OF_KEY[section, key]) is not None
    owner, kind, needed = ONLY_FOR[section, key]
    return bool(getattr(config, FIELD_OF_KEY[owner, kind]) == needed)
