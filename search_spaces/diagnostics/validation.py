"""Validation of sections with Pydantic, whose errors become messages with the value, the rule and the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from search_spaces.diagnostics.diagnostics import Diagnostics, nearest, suggest
from search_spaces.yaml_reader.nodes import number_from_text

_Model = TypeVar("_Model", bound=BaseModel)
_KeyLocations = Mapping[str, tuple[str, ...]]
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+")


class Section(BaseModel):
    """A mapping that allows only known keys, does not convert between types, and rejects NaN and infinities."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


def validated(
    model: type[_Model], data: object, diagnostics: Diagnostics, key_locations: _KeyLocations | None = None
) -> _Model | None:
    """Validate data against a model, and record every error.

    In the result, defaults replace invalid values, so that further checks can use the valid values. Data that do not
    come from a file can contain numbers as text (``'1e-6'``), because PyYAML's loaders read them as text; these are
    converted.

    Args:
        model: The expected keys, types and ranges.
        data: The data to validate.
        diagnostics: Collects the errors; paths start at the data.
        key_locations: The valid locations (``section.key``) of each key, for the remedy for a misplaced key.

    Returns:
        The model; None if a key without a default is missing or invalid.
    """
    data = _with_numbers(model, data) if diagnostics.file is None else data
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
    for detail in details:
        _record(detail, model, diagnostics, key_locations or {})
    bad = {_key_path(detail["loc"]) for detail in details if detail["type"] != "invalid_key"}
    try:
        return model.model_validate({} if () in bad else _without(data, bad))
    except ValidationError:
        return None


def validated_value(field: FieldInfo, value: object, diagnostics: Diagnostics) -> Any:
    """Validate a value against a section's field; record an error and return None if the value is invalid."""
    kind: Any = field.annotation
    constrained: Any = Annotated[kind, *field.metadata] if field.metadata else kind
    adapter: TypeAdapter[Any] = TypeAdapter(constrained, config=ConfigDict(strict=True, allow_inf_nan=False))
    try:
        return adapter.validate_python(value)
    except ValidationError:
        diagnostics.invalid_value((), value, expected_text(field), value_remedy(value, field))
        return None


def expected_text(field: FieldInfo) -> str:
    """Describe the valid values of a field: ``expected a whole number from 1 to 65536``."""
    return f"expected {_kind(field)}"


def _with_numbers(kind: Any, data: object) -> Any:
    """Convert text such as ``'1e-6'`` to a number where the type is a number."""
    if _is_section(kind) and isinstance(data, dict):
        kinds = {name: kind_of(field) for name, field in kind.model_fields.items()}
        return {key: _with_numbers(kinds.get(key), value) for key, value in data.items()}
    if get_origin(kind) is list and isinstance(data, list | tuple):
        return [_with_numbers(kind_of(FieldInfo.from_annotation(get_args(kind)[0])), item) for item in data]
    number = number_from_text(data) if kind in (int, float) and isinstance(data, str) else None
    return data if number is None else number


def _record(
    detail: ErrorDetails, model: type[BaseModel], diagnostics: Diagnostics, key_locations: _KeyLocations
) -> None:
    loc, value = detail["loc"], detail["input"]
    if detail["type"] == "invalid_key" or loc[-1:] == ("[key]",):
        path = [str(key) for key in loc if key != "[key]"]
        diagnostics.error(path, f"found the key {value!r}; expected text; put the key in quotes: '{value}'")
        return
    owner, field = _field_at(model, loc)
    if detail["type"] == "extra_forbidden":
        diagnostics.error(loc, f"unknown key; {_key_remedy(str(loc[-1]), list(owner.model_fields), key_locations)}")
    elif field is None:
        diagnostics.invalid_value(loc, value, "expected a mapping of keys to values", _mapping_remedy(value))
    elif detail["type"] == "missing":
        diagnostics.missing(loc, expected_text(field), "add this key")
    else:
        diagnostics.invalid_value(loc, value, expected_text(field), value_remedy(value, field))


def value_remedy(value: object, field: FieldInfo) -> str:
    """Return the remedy for an invalid value of a field."""
    kind = kind_of(field)
    if _is_mapping(kind):
        return _mapping_remedy(value)
    if get_origin(kind) is Literal:
        return suggest(value, [str(choice) for choice in get_args(kind)])
    if kind is str:
        return _text_remedy(value)
    unquoted = _unquoted(value, kind)
    if unquoted is not None:
        return unquoted
    if kind is bool:
        return "use true or false"
    if kind is int and isinstance(value, float) and value.is_integer():
        return f"use {int(value)}"
    if (
        kind is float
        and isinstance(value, int | float)
        and _limits(_inner(field).metadata).get("le") == 1 < value <= 100
    ):
        return f"use a fraction, not a percentage: {value / 100:g}"
    return f"use, for example, {_example(field)}"


def kind_of(field: FieldInfo) -> Any:
    """Return the type of a field without its constraints, and without None if the field is optional."""
    return _inner(field).annotation


def _unquoted(value: object, kind: object) -> str | None:
    """Return the remedy for a number or Boolean that was written as text; None for other text and other types."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    if kind is bool:
        return f"remove the quotes: {text}" if text.lower() in ("true", "false") else None
    if kind not in (int, float):
        return None
    if _DECIMAL_COMMA.fullmatch(text):
        return f"use a decimal point: {text.replace(',', '.')}"
    if not text.isascii() and text.isdigit():
        return f"use the digits 0 to 9: {int(text)}"
    try:
        number = float(text)
    except ValueError:
        return None
    return f"remove the quotes: {text}" if math.isfinite(number) else None


def _text_remedy(value: object) -> str:
    if isinstance(value, bool | int | float):
        return f"put the value in quotes: '{value}'"
    return "use one line of text that is not blank" if isinstance(value, str) else "use text"


def _mapping_remedy(value: object) -> str:
    if value is None:
        return "add its keys, indented below it, or remove this line"
    return "use 'key: value' lines, indented below it"


def _key_remedy(key: str, here: list[str], key_locations: _KeyLocations) -> str:
    if key in key_locations:
        return f"use {_location_text(key_locations[key])}"
    section, _, inner = key.rpartition(".")
    if key in key_locations.get(inner, ()):
        return f"write '{inner}', indented below '{section}'"
    near = nearest(key, here)
    if near:
        return f"did you mean {near!r}?"
    misplaced = nearest(key, key_locations)
    if misplaced:
        return f"did you mean {_location_text(key_locations[misplaced])}?"
    return f"valid keys here: {', '.join(here)}"


def _location_text(names: Sequence[str]) -> str:
    """Join locations with "or": ``'training.batch_size'``; an option (``the option --output-dir``) is not quoted."""
    parts = [name.partition(".") for name in names]
    return " or ".join(f"'{section}.{key}'" if key else section for section, _, key in parts)


def _field_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """Return the model and the field at the location of an error; the field is None if it does not exist."""
    owner: type[BaseModel] = model
    field: FieldInfo | None = None
    for key in loc:
        if field is not None and isinstance(key, int):
            field = FieldInfo.from_annotation(get_args(kind_of(field))[0])
            continue
        if field is not None and _is_section(kind_of(field)):
            owner = kind_of(field)
        field = owner.model_fields.get(str(key))
    return owner, field


def _kind(field: FieldInfo) -> str:
    field = _inner(field)
    annotation: Any = field.annotation
    if _is_mapping(annotation):
        return "a mapping of keys to values"
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        return ("one of " if len(choices) > 1 else "") + ", ".join(map(str, choices))
    if get_origin(annotation) in (list, tuple):
        item = FieldInfo.from_annotation(get_args(annotation)[0])
        return f"a list{_length(field.metadata)}, each {_kind(item)}"
    words: dict[Any, str] = {
        Any: "a value",
        bool: "true or false",
        str: "text",
        int: "a whole number",
        float: "a number",
    }
    return words[annotation] + _range(field.metadata)


def _range(metadata: Sequence[object]) -> str:
    limits = _limits(metadata)
    if limits.keys() == {"ge", "le"}:
        return f" from {limits['ge']} to {limits['le']}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    parts = [f"{words[name]} {limits[name]}" for name in words if name in limits]
    return f" {' and '.join(parts)}" if parts else ""


def _limits(metadata: Sequence[object]) -> dict[str, float]:
    names = ("ge", "gt", "le", "lt")
    return {name: getattr(item, name) for item in metadata for name in names if hasattr(item, name)}


def _length(metadata: Sequence[object]) -> str:
    minimum = max((getattr(item, "min_length", 0) for item in metadata), default=0)
    maximum = [item.max_length for item in metadata if hasattr(item, "max_length")]
    if not maximum:
        return f" of {minimum} or more values" if minimum else " of values"
    return f" of {minimum} values" if maximum[0] == minimum else f" of {minimum} to {maximum[0]} values"


def _example(field: FieldInfo) -> str:
    if field.examples:
        return str(field.examples[0])
    if isinstance(field.default, bool | int | float | list):
        return str(field.default)
    examples = {int: "10", float: "0.9"}
    return examples.get(kind_of(field), "[1, 2]")


def _inner(field: FieldInfo) -> FieldInfo:
    """Return a field whose type is not optional: ``int`` for ``int | None``."""
    if get_origin(field.annotation) not in (Union, UnionType):
        return field
    return FieldInfo.from_annotation(next(arg for arg in get_args(field.annotation) if arg is not type(None)))


def _is_mapping(annotation: object) -> bool:
    return _is_section(annotation) or get_origin(annotation) is dict


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _key_path(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the keys of an error's location up to the first list position."""
    end = next((index for index, key in enumerate(loc) if isinstance(key, int)), len(loc))
    return loc[:end]


def _without(data: object, bad: set[tuple[int | str, ...]], path: tuple[str, ...] = ()) -> object:
    if not isinstance(data, dict):
        return data
    return {
        key: _without(value, bad, (*path, key))
        for key, value in data.items()
        if isinstance(key, str) and (*path, key) not in bad
    }
