"""Search space files: ranges and choices for fields of `TrainingConfig`, and fixed settings of search trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

from search_spaces.diagnostics.diagnostics import KINDS_OF_FILES, Diagnostics, describe, nearest, suggest
from search_spaces.diagnostics.validation import Section, expected_text, kind_of, validated, validated_value
from search_spaces.errors import ConfigurationError
from search_spaces.experiments.schema import FIELD_OF_KEY, KEY_OF_FIELD, SECTIONS
from search_spaces.model_definitions import ModelDefinition
from search_spaces.space.checks import check_space, warn_of_space
from search_spaces.space.space import Choices, Domain, FloatRange, IntRange, Parameter, Scalar, SearchSpace
from search_spaces.training_config import DATASET_FIELDS, STUDY_FIELDS, WITHOUT_EFFECT
from search_spaces.yaml_reader.file import YamlDocument, load_yaml, resolve_config_path

EXAMPLE = "use, for example, 'space: {learning_rate: {low: 1e-4, high: 1e-2, log: true}}'"
_NOT_BASE: dict[str, str] = {
    **dict.fromkeys(STUDY_FIELDS, "is the same for the whole study; set it in the experiments file"),
    "experiment_name": "is derived from the trial's number; remove this line",
    "output_dir": "is set by --output-dir; remove this line",
    **dict.fromkeys(DATASET_FIELDS, "is determined by the dataset; remove this line"),
}
_NOT_SEARCHED: dict[str, str] = {
    **dict.fromkeys(WITHOUT_EFFECT, "does not affect training results; remove this line"),
    **_NOT_BASE,
    "optimizer_betas": "is a list, which cannot be sampled; fix its value in 'base'",
    "threads": "affects only rounding; fix its value in 'base'",
    "num_epochs": "must be the same in all trials, so that their epochs are comparable; fix its value in 'base'",
}
_SHAPE = "expected a list of choices, or a mapping with low and high"


class _RangeKeys(Section):
    low: Any  # of the same type as the setting
    high: Any
    log: bool = False
    step: float | None = None
    when: dict[str, Any] = Field(default_factory=dict)


class _ChoicesKeys(Section):
    choices: list[Any]
    when: dict[str, Any] = Field(default_factory=dict)


class SpaceParser:
    """A parser for the data of a search space file that records every error."""

    def __init__(self, diagnostics: Diagnostics, definitions: Mapping[str, ModelDefinition] | None) -> None:
        """Create a parser.

        Args:
            diagnostics: Collects the errors; paths start at the file's top level.
            definitions: The defined models, keyed by name; None accepts any model name.
        """
        self._diagnostics = diagnostics
        self._definitions = definitions

    def base(self, data: object) -> dict[str, Any]:
        """Parse the fixed settings; return the valid ones, keyed by field."""
        if not isinstance(data, dict):
            remedy = "use, for example, 'base: {num_epochs: 30}'"
            self._diagnostics.invalid_value("base", data, "expected a mapping of settings to values", remedy)
            return {}
        values = {}
        for name, value in data.items():
            at = self._diagnostics.below("base", str(name))
            if (field := _field(name, _NOT_BASE, at)) is not None:
                values[name] = self._value(name, field, value, at)
        return {name: value for name, value in values.items() if value is not None}

    def parameters(self, data: Mapping[str, Any], base: Mapping[str, Any]) -> list[Parameter]:
        """Parse the sampled settings; return the valid ones in the file's order."""
        entries = data.get("space")
        if not isinstance(entries, dict) or not entries:
            rule = "expected a mapping of settings to ranges or choices"
            if "space" in data:
                self._diagnostics.invalid_value("space", entries, rule, EXAMPLE)
            else:
                self._diagnostics.missing("space", rule, EXAMPLE)
            return []
        parameters: dict[str, Parameter] = {}
        for name, entry in entries.items():
            at = self._diagnostics.below("space", str(name))
            field = _field(name, _NOT_SEARCHED, at)
            if field is None:
                continue
            if name in base:
                at.error(
                    (),
                    "is also in 'base', but a setting is either sampled or fixed; remove one of the two",
                )
            if (parameter := self._parameter(name, field, entry, at)) is not None:
                _check_condition(parameter, parameters, list(entries), at.below("when"))
                parameters[name] = parameter
        return list(parameters.values())

    def _parameter(self, name: str, field: FieldInfo, entry: object, at: Diagnostics) -> Parameter | None:
        if isinstance(entry, list):
            entry = {"choices": entry}
        if not isinstance(entry, dict):
            fixed = "" if entry is None else f", or fix the value in 'base' with {name}: {describe(entry)}"
            at.invalid_value((), entry, _SHAPE, f"use, for example, {_example(field)}{fixed}")
            return None
        if not _has_shape(entry, field, at):
            return None
        read = self._choices if "choices" in entry else self._range
        domain = read(name, field, entry, at)
        when = entry.get("when")
        conditions = self._conditions(when, at.below("when")) if isinstance(when, dict) else {}
        return Parameter(name, domain, conditions) if domain is not None else None

    def _choices(self, name: str, field: FieldInfo, entry: Mapping[str, Any], at: Diagnostics) -> Domain | None:
        keys = validated(_ChoicesKeys, entry, at)
        if keys is None:
            return None
        values = [self._value(name, field, value, at.below(str(i))) for i, value in enumerate(keys.choices)]
        if any(value is None for value in values):
            return None
        if len(values) < 2 or len(set(values)) < len(values):
            remedy = "list each choice once, or fix a single value in 'base'"
            at.invalid_value((), keys.choices, "expected two or more different choices", remedy)
            return None
        return Choices(tuple(values))

    def _range(self, name: str, field: FieldInfo, entry: Mapping[str, Any], at: Diagnostics) -> Domain | None:
        limits = validated(_RangeKeys, entry, at)
        if limits is None:
            return None
        kind = kind_of(field)
        if kind not in (int, float):
            at.error((), f"found a range; {expected_text(field)}; use choices, for example, {_example(field)}")
            return None
        low = self._value(name, field, limits.low, at.below("low"))
        high = self._value(name, field, limits.high, at.below("high"))
        if low is None or high is None:
            return None
        if problem := _limits_problem(low, high, limits, kind):
            at.error((), problem)
            return None
        if kind is float:
            return FloatRange(low, high, limits.log, limits.step)
        return IntRange(low, high, limits.log, 1 if limits.step is None else int(limits.step))

    def _conditions(self, when: Mapping[str, Any], at: Diagnostics) -> dict[str, tuple[Scalar, ...]]:
        conditions: dict[str, tuple[Scalar, ...]] = {}
        for name, values in when.items():
            inner = at.below(name)
            field = _field(name, {"optimizer_betas": "is a list, which conditions do not support; remove it"}, inner)
            if field is not None:
                allowed = values if isinstance(values, list) else [values]
                if not allowed:
                    rule = "expected one or more values"
                    inner.invalid_value((), allowed, rule, "list at least one value, or remove the condition")
                read = (self._value(name, field, value, inner) for value in allowed)
                conditions[name] = tuple(value for value in read if value is not None)
        return conditions

    def _value(self, name: str, field: FieldInfo, value: object, at: Diagnostics) -> Any:
        """Validate a value against its field; record an error and return None if the value is invalid."""
        checked = validated_value(field, value, at)
        if name == "model_name" and self._definitions is not None and checked not in (None, *self._definitions):
            at.invalid_value((), checked, "expected a defined model", suggest(checked, self._definitions))
        return checked


def _field(name: object, refused: Mapping[str, str], at: Diagnostics) -> FieldInfo | None:
    """Return the field of a setting; if the setting is not allowed here, record the reason and return None."""
    if isinstance(name, str) and name in refused:
        at.error((), f"not allowed here, because this setting {refused[name]}")
    elif isinstance(name, str) and name in KEY_OF_FIELD:
        section, key = KEY_OF_FIELD[name]
        return SECTIONS[section].model_fields[key]
    else:
        at.error((), f"unknown setting; {_name_remedy(str(name), refused)}")
    return None


def _has_shape(entry: Mapping[Any, Any], field: FieldInfo, at: Diagnostics) -> bool:
    """Return whether a mapping is either a range or a list of choices; record an error if not."""
    limits, choices = [key for key in ("low", "high") if key in entry], "choices" in entry
    if limits and choices:
        at.invalid((), f"found choices as well as {' and '.join(limits)}; {_SHAPE}; remove one of the two")
    elif not limits and not choices:
        keys = [*_ChoicesKeys.model_fields, *_RangeKeys.model_fields]
        meant = [f"{near} instead of {key}" for key in entry if (near := nearest(key, keys)) and key not in keys]
        remedy = f"use {' and '.join(meant)}" if meant else f"use, for example, {_example(field)}"
        found = f"a mapping with {', '.join(map(str, entry))}" if entry else describe(entry)
        at.invalid((), f"found {found}; {_SHAPE}; {remedy}")
    return bool(limits) != choices


def _check_condition(
    parameter: Parameter, earlier: Mapping[str, Parameter], order: list[object], at: Diagnostics
) -> None:
    """Record conditions that are never true, and conditions on the parameter itself or on a later parameter."""
    for name, values in parameter.when.items():
        # A setting with a condition can have a value outside its domain in trials that do not sample it.
        always = name in earlier and not earlier[name].when
        never = [value for value in values if always and not earlier[name].domain.contains(value)]
        if never:
            rule = f"expected a value of {name} in this search space ({earlier[name].domain})"
            at.invalid_value((name,), never[0], rule, "use such a value, or remove the condition")
        elif name == parameter.name:
            at.error((name,), "found the sampled setting itself; expected another setting; remove this condition")
        elif name in order and order.index(name) > order.index(parameter.name):
            at.error((name,), f"the condition uses a setting sampled later; move {name} above {parameter.name}")


def _limits_problem(low: float, high: float, limits: _RangeKeys, kind: type) -> str | None:
    """Check the limits and the step of a range; return the problem and the remedy, or None if they are valid."""
    step = limits.step
    if low >= high:
        remedy = "swap low and high" if low > high else "fix a single value in 'base'"
        return f"found low {low}, high {high}; expected low to be less than high; {remedy}"
    if limits.log and low <= 0:
        return f"found low {low} with log: true; expected low above 0 on a logarithmic scale; raise low or remove log"
    if limits.log and step is not None:
        return f"found step {step:g} with log: true; expected no step on a logarithmic scale; remove step or log"
    if step is None:
        return None
    if step <= 0 or (kind is int and not step.is_integer()) or high - low > step * 2**53:
        rule = f"expected a {'whole ' if kind is int else ''}number above 0, at least (high - low) / 2**53"
        return f"found step {step:g}; {rule}; use such a step, or remove step"
    if FloatRange(low, high, step=step).contains(high):
        return None
    last = low + math.floor((high - low) / step) * step
    if last <= low:
        return f"found step {step:g} with low {low}, high {high}; expected at most high - low; use a smaller step"
    return f"found high {high}; expected a whole number of steps of {step:g} from low {low}; use high {last:g}"


def _name_remedy(name: str, refused: Mapping[str, str]) -> str:
    """Return the remedy for an unknown setting; ``section.key``, as in an experiments file, is recognised."""
    section, _, key = name.rpartition(".")
    if (section, key) in FIELD_OF_KEY:
        return f"use the field name {FIELD_OF_KEY[section, key]}"
    valid = [field for field in KEY_OF_FIELD if field not in refused]
    near = nearest(name, valid)
    return f"did you mean {near!r}?" if near else f"valid settings: {', '.join(valid)}"


def _example(field: FieldInfo) -> str:
    kind = kind_of(field)
    if kind is float:
        return "{low: 1e-4, high: 1e-2, log: true}"
    if kind is int:
        return "{low: 1, high: 8}"
    if get_origin(kind) is Literal:
        return f"[{', '.join(kind.__args__)}]"
    return "[true, false]" if kind is bool else "[small, medium]"


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
