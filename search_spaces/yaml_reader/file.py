"""YAML configuration files: search for a file, its text, and conversion to data with the line of every key."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import ConfigurationError
from search_spaces.files.regular_files import read_bytes
from search_spaces.yaml_reader.nodes import KeyPath, Problem, compose, plain_data

# Configurations have a few kilobytes; a much larger file is no configuration, and slow to parse.
_MAX_BYTES = 256 * 1024
_ASSIGNMENT = re.compile(r"[\w.\"'-]+\s*=(?!=)")


def read_source(file: Path) -> str:
    """Read the text of a configuration file.

    Raises:
        FileNotFoundError: The file does not exist.
        ConfigurationError: The file is not UTF-8 text, or too large.
    """
    content = _content(file)
    try:
        if (at := content.find(0)) < 0:
            return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start
    line = content.count(b"\n", 0, at) + 1
    raise ConfigurationError(f"{file}:{line}: not YAML in UTF-8; save the file as UTF-8 text")


def syntax_text(file: Path, text: str, error: yaml.YAMLError) -> str:
    """Format the location, the cause and the remedy of a YAML error in one line."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        return f"{file}:{line}:{column}: the character {chr(error.character)!a} is not allowed in YAML; delete it"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{file}: not valid YAML: {error}; correct the file"
    mark = error.problem_mark
    context = f" {error.context}" if error.context else ""
    if error.context and error.context_mark is not None and error.context_mark.line != mark.line:
        context += f" that starts in line {error.context_mark.line + 1}"
    lines = text.splitlines()
    shown = lines[mark.line].strip() if mark.line < len(lines) else ""
    near = f" near {shown[:60]!r}" if shown else ""
    location = f"{file}:{mark.line + 1}:{mark.column + 1}"
    cause = f"{error.problem}{context}"
    if cause.startswith("but "):  # PyYAML puts the expectation into the context
        cause = f"{context.strip()}, {error.problem}"
    return f"{location}: not valid YAML: {cause}{near}; {_remedy(error, shown)}"


def _content(file: Path) -> bytes:
    try:
        return read_bytes(file, _MAX_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        inside = ", ".join(sorted(inside.name for inside in file.glob("*.y*ml"))[:5])
        remedies = {
            errno.ENXIO: f"use a YAML file{inside and f' in this folder: {inside}'}",
            errno.EOVERFLOW: "use a configuration file (a dataset's metadata.yaml is set with 'data.metadata_path')",
        }
        remedy = remedies.get(error.errno or 0, "check the file and its permissions")
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror}); {remedy}") from error


def _remedy(error: yaml.MarkedYAMLError, line: str) -> str:
    problem = str(error.problem)
    if "\\t" in problem:
        return "indent with spaces, not tabs"
    if "alias" in problem:
        return "define the anchor (&name) above its use (*name)"
    if "tag" in problem:
        return "use plain values without '!' tags"
    if "single document" in str(error.context):
        return "keep one document in the file (no second '---')"
    if _ASSIGNMENT.match(line):
        return "use 'key: value', not 'key = value'"
    return "check indentation, colons, brackets and quotes near this line"


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
