"""Conversion between YAML and plain data (dicts, lists and scalars), with line numbers, merge keys and size limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

# The mapping keys (as text) and list positions that lead from the root to a value.
KeyPath = tuple[str | int, ...]
# A line and a message.
Problem = tuple[int, str]

_MAX_VALUES = 50_000
_MAX_DEPTH = 40
_TAG = "tag:yaml.org,2002:"
_MERGE_TAG = _TAG + "merge"
_COLLECTION_TAGS = (_TAG + "map", _TAG + "seq")
_SCALAR_TAGS = tuple(_TAG + kind for kind in ("null", "bool", "int", "float", "str"))


# Unquoted words and numbers: those of YAML 1.2, and from YAML 1.1 yes, no, on, off and underscores in numbers.
# Each entry has the kind, the pattern and the possible first characters.
_PLAIN_VALUES: tuple[tuple[str, str, Iterable[str]], ...] = (
    ("bool", r"(?i:yes|no|true|false|on|off)", "yYnNtTfFoO"),
    ("int", r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F]+)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?\.(?i:inf|nan)", "-+."),
    ("null", r"~|null|Null|NULL", "~nN"),
    ("null", r"", [""]),
    ("merge", r"<<", "<"),
)


class _ConfigLoader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's numbers: ``1e-3`` is a float, ``010`` is ten, dates are text."""


_ConfigLoader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in _PLAIN_VALUES:
    _ConfigLoader.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern})$"), _first)


class _ConfigDumper(yaml.SafeDumper):
    """The counterpart of `_ConfigLoader`, which quotes text that the loader would read as another type."""

    yaml_implicit_resolvers = _ConfigLoader.yaml_implicit_resolvers


def _int(loader: yaml.SafeLoader, node: yaml.Node) -> int:
    text = str(node.value).replace("_", "")
    return int(text, 16) if "x" in text else int(text)


def _float(loader: yaml.SafeLoader, node: yaml.Node) -> float:
    text = str(node.value).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # PyYAML reads unescaped non-ASCII line breaks as spaces; it escapes them only in double quotes.
    style = '"' if any(line_break in text for line_break in "\x85\u2028\u2029") else None
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_ConfigDumper.add_representer(str, _text)
_ConfigLoader.add_constructor(_TAG + "int", _int)
_ConfigLoader.add_constructor(_TAG + "float", _float)


def number_from_text(text: str) -> float | None:
    """Convert text that is a number here but not for PyYAML's own loaders (``1e-6``); return None for other text."""
    loaders = yaml.SafeLoader(""), _ConfigLoader("")
    tags = [loader.resolve(yaml.ScalarNode, text, (True, False)) for loader in loaders]  # type: ignore[no-untyped-call]
    is_number = tags == [_TAG + "str", _TAG + "float"]
    return _float(loaders[1], yaml.ScalarNode(_TAG + "float", text)) if is_number else None


def yaml_text(data: object, *, block_style: bool = False) -> str:
    """Format plain data as YAML, with keys in their order.

    Args:
        data: The data.
        block_style: Whether every value has a separate line; otherwise, each innermost list or mapping is in one line.
    """
    flow = False if block_style else None
    text: str = yaml.dump(
        data, Dumper=_ConfigDumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=1_000_000
    )
    return text


def compose(text: str) -> yaml.Node | None:
    """Parse a YAML text with one document and return the root node; None if the text is empty.

    Raises:
        yaml.YAMLError: The text is not YAML or has several documents.
        RecursionError: The text is nested hundreds of levels deep.
    """
    loader = _ConfigLoader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def plain_data(root: yaml.Node) -> tuple[Any, dict[KeyPath, int], list[Problem], bool]:
    """Convert a node tree to plain data.

    The keys of a mapping override merged keys, earlier merged mappings override later ones, and the first of two
    duplicate keys is used.

    Returns:
        The data; the line of every key and list item; all problems; and whether the data is complete. Problems other
        than duplicate keys leave gaps in the data, so that further checks would report wrong problems.
    """
    converter = _Converter()
    data = converter.value(root, (), ())
    return data, converter.lines, list(dict.fromkeys(converter.problems)), converter.is_complete


class _Converter:
    """The conversion of one node tree to plain data, and the problems that it finds."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []
        self.is_complete = True
        self._values = 0
        self._scalars = _ConfigLoader("")

    def value(self, node: yaml.Node, path: KeyPath, ancestors: tuple[yaml.Node, ...]) -> Any:
        """Convert the node at a path; `ancestors` are the nodes that contain the node, outermost first."""
        if not self._may_expand(node, ancestors):
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in _COLLECTION_TAGS:
            self._tag_problem(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, (*ancestors, node))
        return self._sequence(node, path, (*ancestors, node))

    def _may_expand(self, node: yaml.Node, ancestors: tuple[yaml.Node, ...]) -> bool:
        self._values += 1
        if self._values == _MAX_VALUES:
            self._problem(node, f"anchors expand to more than {_MAX_VALUES} values; use fewer aliases")
        if len(ancestors) > _MAX_DEPTH:
            self._problem(node, f"nested more than {_MAX_DEPTH} levels deep; reduce the nesting")
        elif any(node is outer for outer in ancestors):
            self._problem(node, "an anchor contains itself; replace the alias by its values")
        else:
            return self._values < _MAX_VALUES
        return False

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, ancestors: tuple[yaml.Node, ...]) -> dict[Any, Any]:
        data: dict[Any, Any] = {}
        for key, key_node, value_node in self._pairs(node, ancestors):
            if key in data:
                continue
            inner = (*path, str(key))
            self.lines[inner] = _line(key_node)
            data[key] = self.value(value_node, inner, ancestors)
        return data

    def _pairs(
        self, node: yaml.MappingNode, ancestors: tuple[yaml.Node, ...]
    ) -> Iterator[tuple[Any, yaml.Node, yaml.Node]]:
        """Yield each key of the mapping, then each merged key, with the nodes of the key and of its value."""
        merged: list[yaml.MappingNode] = []
        first_lines: dict[Any, int] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key in first_lines:
                text = f"the key {key!r} is already in line {first_lines[key]}; remove one of the two"
                self.problems.append((_line(key_node), text))
                continue
            first_lines[key] = _line(key_node)
            if key_node.tag == _MERGE_TAG:
                merged = self._merged_mappings(value_node)
            else:
                yield key, key_node, value_node
        for other in merged:
            if self._may_expand(other, ancestors):
                yield from self._pairs(other, (*ancestors, other))

    def _merged_mappings(self, node: yaml.Node) -> list[yaml.MappingNode]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        mappings = [item for item in nodes if isinstance(item, yaml.MappingNode)]
        if len(mappings) < len(nodes):
            self._problem(node, "a merge key (<<) needs a mapping or a list of mappings; use, for example, <<: *anchor")
        return mappings

    def _key(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return "<<" if node.tag == _MERGE_TAG else self._scalar(node)
        self._problem(node, "found a list or mapping as a key; expected a single value; use text as the key")
        return f"line {_line(node)}"

    def _sequence(self, node: yaml.Node, path: KeyPath, ancestors: tuple[yaml.Node, ...]) -> list[Any]:
        items: list[Any] = []
        for index, item in enumerate(node.value):
            self.lines[(*path, index)] = _line(item)
            items.append(self.value(item, (*path, index), ancestors))
        return items

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag not in _SCALAR_TAGS:
            self._tag_problem(node)
            return None
        try:
            return self._scalars.construct_object(node)
        except (ValueError, KeyError):  # an explicit tag that does not match the value, or thousands of digits
            kind = node.tag.removeprefix(_TAG)
            self._problem(node, f"{str(node.value)[:30]!r} is not a valid {kind}; use another value, or quote it")
        return None

    def _tag_problem(self, node: yaml.Node) -> None:
        tag = node.tag.replace(_TAG, "!!")
        self._problem(node, f"the tag {tag} is not allowed; use a plain value, list or mapping without a tag")

    def _problem(self, node: yaml.Node, text: str) -> None:
        self.problems.append((_line(node), text))
        self.is_complete = False


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
