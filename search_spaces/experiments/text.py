"""Conversion of training configurations to the text of an experiments file, the inverse of `load_experiments`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.experiments.schema import FIELD_OF_KEY, KEY_OF_FIELD, ONLY_FOR, SECTIONS, Targets
from search_spaces.training_config import DATASET_FIELDS, TrainingConfig
from search_spaces.yaml_reader.nodes import yaml_text


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
