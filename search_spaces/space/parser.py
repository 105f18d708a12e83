"""From the data of a search space file to its parameters, recording every problem on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

from search_spaces.diagnostics.diagnostics import Diagnostics, describe, nearest, suggest
from search_spaces.diagnostics.validation import Section, expected_text, kind_of, validated, validated_value
from search_spaces.experiments.schema import FIELD_OF_KEY, KEY_OF_FIELD, SECTIONS
from search_spaces.model_definitions import ModelDefinition
from search_spaces.space.space import Choices, Domain, FloatRange, IntRange, Parameter, Scalar
from search_spaces.training_config import STUDY_FIELDS, WITHOUT_INFLUENCE

EXAMPLE = "write 'space:' and below it, for example, 'learning_rate: {low: 1e-4, high: 1e-2, log: true}'"
_NOT_BASE: dict[str, str] = {
    **dict.fromkeys(STUDY_FIELDS, "is one for the whole study; set it in the experiments"),
    "experiment_name": "is given to each trial by its number; leave it out",
    "output_dir": "is given by --output-dir; leave it out",
}
_NOT_SEARCHED: dict[str, str] = {
    **dict.fromkeys(WITHOUT_INFLUENCE, "does not change what a training reaches; leave it out"),
    **_NOT_BASE,
    "optimizer_betas": "is a list; write it under base:",
    "num_epochs": "must be the same for all trials, so that their epochs compare; write it under base:",
}
_SHAPE = "a list of choices, or a mapping with low and high, is expected"


class _RangeKeys(Section):
    low: Any  # its type is the setting's
    high: Any
    log: bool = False
    step: float | None = None
    when: dict[str, Any] = Field(default_factory=dict)


class _ChoicesKeys(Section):
    choices: list[Any]
    when: dict[str, Any] = Field(default_factory=dict)


class SpaceReader:
    """Turns the data of a search space file into parameters, recording every problem."""

    def __init__(self, diagnostics: Diagnostics, definitions: Mapping[str, ModelDefinition] | None) -> None:
        """Prepare to read; `definitions` are the models that exist, or None to accept any name."""
        self._diagnostics = diagnostics
        self._definitions = definitions

    def base(self, data: object) -> dict[str, Any]:
        """Return the fixed values, without the wrong ones."""
        if not isinstance(data, dict):
            self._diagnostics.problem(
                ("base",), data, "a mapping of settings is expected", "write 'num_epochs: 30' there"
            )
            return {}
        values = {}
        for name, value in data.items():
            field = self._field(name, ("base", str(name)), _NOT_BASE)
            if field is not None:
                values[name] = self._value(name, field, value, ("base", name))
        return {name: value for name, value in values.items() if value is not None}

    def parameters(self, data: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Parameter]:
        """Return the parameters by name, in the file's order, without the wrong ones."""
        entries = data.get("space")
        if not isinstance(entries, dict) or not entries:
            rule = "a mapping from settings to ranges or choices is expected"
            if "space" in data:
                self._diagnostics.problem(("space",), entries, rule, EXAMPLE)
            else:
                self._diagnostics.missing(("space",), rule, EXAMPLE)
            return {}
        parameters: dict[str, Parameter] = {}
        for name, entry in entries.items():
            path = ("space", str(name))
            field = self._field(name, path, _NOT_SEARCHED)
            if field is None:
                continue
            if name in base:
                self._diagnostics.problem_text(
                    path, "is under base: too; a setting is fixed or varies, not both; keep one"
                )
            parameter = self._parameter(name, field, entry, path)
            if parameter is not None:
                self._check_condition(parameter, parameters, list(entries))
                parameters[name] = parameter
        return parameters

    def _field(self, name: object, path: tuple[str, ...], refused: Mapping[str, str]) -> FieldInfo | None:
        """Return the documented field of a name, or None after recording why the name cannot stand here."""
        if isinstance(name, str) and name in refused:
            self._diagnostics.problem_text(path, f"cannot stand here; it {refused[name]}")
        elif isinstance(name, str) and name in KEY_OF_FIELD:
            section, key = KEY_OF_FIELD[name]
            return SECTIONS[section].model_fields[key]
        else:
            self._diagnostics.problem_text(path, f"unknown setting; {_name_remedy(str(name), refused)}")
        return None

    def _parameter(self, name: str, field: FieldInfo, entry: object, path: tuple[str, ...]) -> Parameter | None:
        if isinstance(entry, list):
            entry = {"choices": entry}
        if not isinstance(entry, dict):
            fixed = "" if entry is None else f"; a fixed value goes under base: as {name}: {describe(entry)}"
            self._diagnostics.problem(path, entry, _SHAPE, f"write, for example, {_example(field)}{fixed}")
            return None
        if not self._has_shape(entry, path, field):
            return None
        read = self._choices if "choices" in entry else self._range
        domain = read(name, field, entry, path)
        when = entry.get("when")
        conditions = self._conditions(when, (*path, "when")) if isinstance(when, dict) else {}
        return Parameter(name, domain, conditions) if domain is not None else None

    def _has_shape(self, entry: Mapping[Any, Any], path: tuple[str, ...], field: FieldInfo) -> bool:
        """Return whether a mapping is clearly a range or clearly choices, or record what it is instead."""
        limits, choices = [key for key in ("low", "high") if key in entry], "choices" in entry
        if limits and choices:
            text = f"found choices as well as {' and '.join(limits)}; {_SHAPE}; keep one of the two"
            self._diagnostics.broken(path, text)
        elif not limits and not choices:
            keys = [*_ChoicesKeys.model_fields, *_RangeKeys.model_fields]
            meant = [f"{near} for {key}" for key in entry if (near := nearest(key, keys)) and key not in keys]
            remedy = f"write {' and '.join(meant)}" if meant else f"write, for example, {_example(field)}"
            found = f"a mapping with {', '.join(map(str, entry))}" if entry else describe(entry)
            self._diagnostics.broken(path, f"found {found}; {_SHAPE}; {remedy}")
        return bool(limits) != choices

    def _choices(self, name: str, field: FieldInfo, entry: Mapping[str, Any], path: tuple[str, ...]) -> Domain | None:
        keys = validated(_ChoicesKeys, entry, path, self._diagnostics)
        if keys is None:
            return None
        values = [self._value(name, field, value, (*path, str(i))) for i, value in enumerate(keys.choices)]
        if any(value is None for value in values):
            return None
        if len(values) < 2 or len(set(values)) < len(values):
            remedy = "write each once, and a single fixed value under base:"
            self._diagnostics.problem(path, keys.choices, "two or more different choices are expected", remedy)
            return None
        return Choices(tuple(values))

    def _range(self, name: str, field: FieldInfo, entry: Mapping[str, Any], path: tuple[str, ...]) -> Domain | None:
        limits = validated(_RangeKeys, entry, path, self._diagnostics)
        if limits is None:
            return None
        kind = kind_of(field)
        if kind not in (int, float):
            remedy = f"write, for example, {_example(field)}"
            self._diagnostics.problem_text(path, f"found a range; {expected_text(field)}, so no range; {remedy}")
            return None
        low = self._value(name, field, limits.low, (*path, "low"))
        high = self._value(name, field, limits.high, (*path, "high"))
        if low is None or high is None:
            return None
        problem = _limits_problem(low, high, limits, kind)
        if problem:
            self._diagnostics.problem_text(path, problem)
            return None
        if kind is float:
            return FloatRange(low, high, limits.log, limits.step)
        return IntRange(low, high, limits.log, 1 if limits.step is None else int(limits.step))

    def _conditions(self, when: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, tuple[Scalar, ...]]:
        conditions: dict[str, tuple[Scalar, ...]] = {}
        for name, values in when.items():
            field = self._field(name, (*path, name), {"optimizer_betas": "is a list, which no condition can use"})
            if field is not None:
                wanted = values if isinstance(values, list) else [values]
                if not wanted:
                    rule = "a value, or a list of some, is expected"
                    self._diagnostics.problem((*path, name), wanted, rule, "write one, or leave the condition out")
                read = (self._value(name, field, value, (*path, name)) for value in wanted)
                conditions[name] = tuple(value for value in read if value is not None)
        return conditions

    def _check_condition(self, parameter: Parameter, above: Mapping[str, Parameter], order: list[object]) -> None:
        """Record conditions that never hold or that nothing has decided yet when their parameter is drawn."""
        for name, values in parameter.when.items():
            path = ("space", parameter.name, "when", name)
            # Where that setting does not vary itself, it can have values that it is never given.
            always = name in above and not above[name].when
            never = [value for value in values if always and not above[name].domain.holds(value)]
            if never:
                rule = f"the space never gives {name} this value"
                self._diagnostics.problem(path, never[0], rule, "write one that it does give, or leave it out")
            elif name == parameter.name:
                self._diagnostics.problem_text(path, "the condition is about the setting itself; leave it out")
            elif name in order and order.index(name) > order.index(parameter.name):
                text = f"the condition is about a setting further down; move {name} above {parameter.name}"
                self._diagnostics.problem_text(path, text)

    def _value(self, name: str, field: FieldInfo, value: object, path: tuple[str, ...]) -> Any:
        """Return a value as its field would hold it, or None after recording what is wrong."""
        checked = validated_value(field, value, path, self._diagnostics)
        if name == "model_name" and self._definitions is not None and checked not in (None, *self._definitions):
            self._diagnostics.problem(path, checked, "a defined model is expected", suggest(checked, self._definitions))
        return checked


def _limits_problem(low: float, high: float, limits: _RangeKeys, kind: type) -> str | None:
    """Return what is wrong with the limits of a range and what to write, or None."""
    step = limits.step
    if low >= high:
        remedy = "swap them" if low > high else "write a single fixed value under base:"
        return f"found low {low}, high {high}; low < high must hold; {remedy}"
    if limits.log and low <= 0:
        return f"found low {low} with log: true; a logarithmic scale starts above 0; raise low or drop log"
    if limits.log and step is not None:
        return f"found step {step:g} with log: true; a logarithmic scale has no steps; keep one of the two"
    if step is None:
        return None
    if step <= 0 or (kind is int and not step.is_integer()):
        return f"found step {step:g}; a step is a {'whole ' if kind is int else ''}number above 0; write another"
    if _is_multiple(high - low, step):
        return None
    last = low + math.floor((high - low) / step) * step
    if last <= low:
        return f"found step {step:g} from {low} to {high}; a step fits between low and high; write a smaller one"
    return f"found high {high}; steps of {step:g} from {low} do not reach it; write high: {last:g}"


def _name_remedy(name: str, refused: Mapping[str, str]) -> str:
    """Return the name that was meant; configuration files call some fields ``section.key``."""
    section, _, key = name.rpartition(".")
    if (section, key) in FIELD_OF_KEY:
        return f"write {FIELD_OF_KEY[section, key]}"
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


def _is_multiple(distance: float, step: float) -> bool:
    return math.isclose(distance / step, round(distance / step), abs_tol=1e-9)
