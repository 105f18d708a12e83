"""Configuration files: YAML as people write it, read into plain data that knows the line of every key."""

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
    """A configuration and where it comes from.

    Attributes:
        data: The file's mapping as plain dicts, lists and scalars.
        path: The file, or None if the configuration was built by a program.
        lines: The line, counted from 1, of every key and list item, by the keys that lead to it.
        duplicates: The line and the text of each duplicate key; `Diagnostics` reports them.
    """

    data: dict[Any, Any]
    path: Path | None = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    duplicates: tuple[Problem, ...] = ()

    def line(self, path: Sequence[str | int]) -> int | None:
        """Return the line of a key, or of the nearest key above it that is in the file."""
        keys = tuple(path)
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys)

    def location(self, path: Sequence[str | int]) -> str:
        """Return ``file:line: `` of a key for a message; nothing for a configuration without a file."""
        if self.path is None:
            return ""
        line = self.line(path)
        return f"{self.path}: " if line is None else f"{self.path}:{line}: "


def resolve_config_path(path: str | Path, named_in: Path | None = None) -> Path:
    """Return where a configuration file is: in the working directory or, if not there, in this package.

    Args:
        path: As the user wrote it; ``~`` is the home folder. An absolute path is taken as it is.
        named_in: The file that names it, whose folder comes second; None if no file does.

    Raises:
        FileNotFoundError: If it is nowhere; the message names all places and a file of a similar name.
    """
    wanted = Path(os.path.expanduser(path))
    # os.path, because pathlib raises for names that are too long or folders that may not be entered.
    if os.path.exists(wanted):
        return wanted
    beside = named_in.absolute().parent / wanted if named_in else None
    if beside and os.path.isfile(beside):
        return beside
    packaged = PACKAGE_FOLDER / wanted
    if not wanted.is_absolute() and ".." not in wanted.parts and os.path.isfile(packaged):
        return packaged
    raise FileNotFoundError(_missing_text(path, wanted, beside))


def load_yaml(path: str | Path) -> YamlDocument:
    """Read a YAML file whose top level is a mapping.

    ``1e-3`` is a number, anchors and merge keys work, a byte order mark is skipped, and no tag can run code.

    Args:
        path: The file; relative paths start at the working directory.

    Raises:
        FileNotFoundError: If there is no such file.
        yaml.YAMLError: If it is not YAML; the message has file, line and column.
        ConfigurationError: If it cannot be read, is not UTF-8, is empty or too large, or is no mapping.
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
        raise ConfigurationError(f"{file}: nested too deeply to be a configuration; write it flatter") from None
    if node is None:
        raise ConfigurationError(f"{file}: the file is empty; {_START_HERE}")
    data, lines, problems, is_complete = plain_data(node)
    if not is_complete:
        raise ConfigurationError([f"{file}:{line}: {text}" for line, text in problems])
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise ConfigurationError(f"{file}:1: found {kind}; a mapping of keys is expected; {_START_HERE}")
    return YamlDocument(data, file, lines, tuple(problems))


_START_HERE = f"start from a copy of {PACKAGE_FOLDER / 'config'}"


def _missing_text(path: str | Path, wanted: Path, beside: Path | None = None) -> str:
    if os.path.islink(wanted):
        return (
            f"configuration file not found: {path}; it is a link to {os.readlink(wanted)}, which leads nowhere; mend it"
        )
    places = dict.fromkeys([wanted.absolute(), *([beside] if beside else []), PACKAGE_FOLDER / wanted])
    looked_for = " and ".join(map(str, places))
    return f"configuration file not found: {path}; looked for {looked_for}{_near_file(wanted, places)}"


def _near_file(wanted: Path, places: Iterable[Path]) -> str:
    folders = dict.fromkeys(place.parent for place in places)
    found = {file.name: file for folder in folders if os.path.isdir(folder) for file in folder.glob("*.y*ml")}
    near = similar_name(wanted.name, found)
    return f"; did you mean {found[near]}?" if near else "; check the path"


def similar_name(wanted: str, names: Iterable[str]) -> str | None:
    """Return the file name that a wrong one was probably meant to be, or None.

    The suffix does not make two names similar, and names with other numbers are those of other files.
    """
    stem, numbers = Path(wanted).stem, re.findall(r"\d+", Path(wanted).stem)
    by_stem = {Path(name).stem: name for name in names if re.findall(r"\d+", Path(name).stem) == numbers}
    near = difflib.get_close_matches(stem, by_stem, n=1, cutoff=_MIN_SIMILARITY)
    return by_stem[near[0]] if near else None
