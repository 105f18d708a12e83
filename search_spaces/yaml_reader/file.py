"""YAML configuration files: search for a file, and conversion to data with the line of every key."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import ConfigurationError
from search_spaces.yaml_reader.nodes import KeyPath, Problem, compose, plain_data
from search_spaces.yaml_reader.text import read_source, syntax_text

PACKAGE_FOLDER = Path(__file__).parents[1]
_MIN_SIMILARITY = 0.8


@dataclass(frozen=True)
class YamlDocument:
    """A configuration with its source locations.

    Attributes:
        data: The top-level mapping; contains only dicts, lists and scalars.
        path: The file; None if the configuration was passed as a dictionary.
        lines: The line of every key and list item, counted from 1, keyed by key path.
        duplicates: The line and the message of each duplicate key; `Diagnostics` reports them.
    """

    data: dict[Any, Any]
    path: Path | None = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    duplicates: tuple[Problem, ...] = ()

    def line(self, path: Sequence[str | int]) -> int | None:
        """Return the line of a key; if the file does not contain the key, the line of its innermost parent there."""
        keys = tuple(path)
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys)

    def location(self, path: Sequence[str | int]) -> str:
        """Return the location of a key as ``file:line: ``, the start of a message; "" without a file."""
        if self.path is None:
            return ""
        line = self.line(path)
        return f"{self.path}: " if line is None else f"{self.path}:{line}: "


def resolve_config_path(path: str | Path, named_in: Path | None = None) -> Path:
    """Find a configuration file in the working directory, in the folder of `named_in`, or in this package.

    Args:
        path: The path from the user; ``~`` is the home folder.
        named_in: The file that refers to `path`; None if no file does.

    Raises:
        FileNotFoundError: The file does not exist; the message lists the searched paths and suggests a similar file.
    """
    expanded = Path(os.path.expanduser(path))
    # os.path returns False for names that are too long and for folders without permission; pathlib would raise.
    if os.path.exists(expanded):
        return expanded
    relative = named_in.absolute().parent / expanded if named_in else None
    if relative and os.path.isfile(relative):
        return relative
    built_in = PACKAGE_FOLDER / expanded
    if not expanded.is_absolute() and ".." not in expanded.parts and os.path.isfile(built_in):
        return built_in
    raise FileNotFoundError(_missing_text(path, expanded, relative))


def load_yaml(path: str | Path) -> YamlDocument:
    """Read a YAML file whose top level is a mapping.

    ``1e-3`` is a number, anchors and merge keys are supported, a byte order mark is skipped, and tags cannot run code.

    Args:
        path: The file; a relative path starts at the working directory.

    Raises:
        FileNotFoundError: The file does not exist.
        yaml.YAMLError: The file is not YAML; the message has file, line and column.
        ConfigurationError: The file cannot be read, is not UTF-8, is empty or too large, or is not a mapping.
    """
    file = Path(path)
    try:
        text = read_source(file)
    except FileNotFoundError:
        raise FileNotFoundError(_missing_text(file, file)) from None
    try:
        node = compose(text)
    except yaml.YAMLError as error:
        raise yaml.YAMLError(syntax_text(file, text, error)) from error
    except RecursionError:
        raise ConfigurationError(f"{file}: nested too deeply for a configuration; reduce the nesting") from None
    if node is None:
        raise ConfigurationError(f"{file}: the file is empty; {_START_HERE}")
    data, lines, problems, is_complete = plain_data(node)
    if not is_complete:
        raise ConfigurationError([f"{file}:{line}: {text}" for line, text in problems])
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise ConfigurationError(f"{file}:1: found {kind}; expected a mapping of keys to values; {_START_HERE}")
    return YamlDocument(data, file, lines, tuple(problems))


_START_HERE = f"start from a copy of {PACKAGE_FOLDER / 'config'}"


def _missing_text(path: str | Path, expanded: Path, relative: Path | None = None) -> str:
    if os.path.islink(expanded):
        broken = f"it is a broken symbolic link to {os.readlink(expanded)}"
        return f"configuration file not found: {path}; {broken}; repair the link"
    searched = dict.fromkeys([expanded.absolute(), *([relative] if relative else []), PACKAGE_FOLDER / expanded])
    paths = " and ".join(map(str, searched))
    return f"configuration file not found: {path}; looked for {paths}{_suggestion(expanded, searched)}"


def _suggestion(missing: Path, searched: Iterable[Path]) -> str:
    folders = dict.fromkeys(path.parent for path in searched)
    found = {file.name: file for folder in folders if os.path.isdir(folder) for file in folder.glob("*.y*ml")}
    near = similar_name(missing.name, found)
    return f"; did you mean {found[near]}?" if near else "; check the path"


def similar_name(missing: str, names: Iterable[str]) -> str | None:
    """Return the file name that is most similar to a missing file's name; None if no name is similar.

    Suffixes are ignored. Names with different numbers are not similar.
    """
    stem, numbers = Path(missing).stem, re.findall(r"\d+", Path(missing).stem)
    by_stem = {Path(name).stem: name for name in names if re.findall(r"\d+", Path(name).stem) == numbers}
    near = difflib.get_close_matches(stem, by_stem, n=1, cutoff=_MIN_SIMILARITY)
    return by_stem[near[0]] if near else None
