"""Search space files: ranges and choices over fields of `TrainingConfig`, and the base of their trials."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from search_spaces.errors import ConfigurationError
from search_spaces.problems import Findings, suggest
from search_spaces.space import FloatRange, SearchSpace
from search_spaces.space_reader import EXAMPLE, SpaceReader
from search_spaces.yaml_files import YamlDocument, load_yaml, resolve_config_path


def load_search_space(path: str | Path, models: Collection[str] | None = None) -> SearchSpace:
    """Read and check a search space file.

    Args:
        path: Looked up in the working directory, then in this package.
        models: The names of the models that exist, to check those in the space; None leaves them unchecked.

    Raises:
        FileNotFoundError: If the file is in neither place.
        yaml.YAMLError: If it is not YAML; the message has file, line and column.
        ConfigurationError: If anything in it is wrong; all problems at once, each with line and key.
    """
    document = load_yaml(resolve_config_path(path))
    return parse_search_space(document.data, document, models)


def parse_search_space(
    data: dict[str, Any], document: YamlDocument | None = None, models: Collection[str] | None = None
) -> SearchSpace:
    """Check a search space given as plain data, for example by `SearchSpace.as_dict`.

    Args:
        data: The mappings ``space`` and (optional) ``base``.
        document: The file that the data was read from; gives messages their file and line.
        models: As for `load_search_space`.

    Raises:
        ConfigurationError: If anything in it is wrong; all problems at once.
    """
    if not isinstance(data, dict):
        raise ConfigurationError(f"a search space is a mapping, not {type(data).__name__}; {EXAMPLE}")
    findings = Findings(document or YamlDocument(data))
    for key in data:
        if key not in ("base", "space"):
            findings.problem_text((str(key),), f"unknown key; {suggest(key, ('base', 'space'))}")
    reader = SpaceReader(findings, models)
    base = reader.base(data.get("base", {}))
    parameters = reader.parameters(data, base)
    space = SearchSpace(tuple(parameters.values()), base)
    _check_floor(space, findings)
    findings.raise_problems()
    return space


def _check_floor(space: SearchSpace, findings: Findings) -> None:
    """Record that a trial could get a lowest learning rate above its initial one."""
    ranges = {parameter.name: parameter.domain for parameter in space}
    rate, floor = ranges.get("learning_rate"), ranges.get("min_lr")
    highest = floor.high if isinstance(floor, FloatRange) else space.base.get("min_lr")
    if isinstance(rate, FloatRange) and isinstance(highest, float) and highest > rate.low:
        rule = f"the lowest learning rate of a trial (min_lr, up to {highest:g}) is at most its initial one"
        remedy = f"write a low of {highest:g} or more, or a smaller min_lr"
        findings.problem(("space", "learning_rate", "low"), rate.low, rule, remedy)
