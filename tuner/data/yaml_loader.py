"""A YAML loader for large files of plain data: all scalars are text, and each mapping has a line number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import DataLoaderError

_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # PyYAML may be built without libyaml

_MAX_DEPTH = 50


class YamlMapping(dict[str, "Node"]):
    """A mapping in the file; `line` is its first line, counted from 1."""

    line: int = 0


Node = str | list["Node"] | YamlMapping
"""A value in the file: text, a list, or a mapping with text keys."""


class _TextLoader(_Loader):  # type: ignore[misc]
    """A PyYAML loader that returns all scalars as text; aliases and merge keys are resolved, tags ignored."""

    _depth = 0

    def descend_resolver(self, parent: yaml.Node, index: Any) -> None:
        # The composer calls this for each node. The limit keeps deeply nested files from exhausting the stack.
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"it is nested more than {_MAX_DEPTH} levels deep", problem_mark=parent.start_mark
            )

    def ascend_resolver(self) -> None:
        self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> YamlMapping:
        mapping = YamlMapping()
        mapping.line = node.start_mark.line + 1
        merged: list[Node] = []
        for key_node, value_node in node.value:
            key, value = self.construct_object(key_node), self.construct_object(value_node)
            if key == "<<":
                merged += value if isinstance(value, list) else [value]
            elif isinstance(key, str):
                mapping[key] = value
        for source in merged:
            if isinstance(source, YamlMapping):
                mapping.update({key: value for key, value in source.items() if key not in mapping})
        return mapping


def load_yaml(data: bytes, file: Path) -> Node:
    """Parse the first YAML document in `data`; return empty text if `data` has no document.

    Raises:
        DataLoaderError: `data` is not YAML in UTF-8; the message gives `file`, line and column.
    """
    try:
        document: Node = next(yaml.load_all(data, _TextLoader), "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        why = f"{error.problem} ({error.context})" if error.context else error.problem
        raise DataLoaderError(f"{file}{where}: is not valid YAML: {why}; correct this line") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = str(error).partition("\n")[0]
        raise DataLoaderError(
            f"{file}: is not YAML in UTF-8: {why}; choose the dataset's metadata.yaml, or save this file as UTF-8"
        ) from error
    return document
