"""Configuration files: YAML as people write it, read into plain data that knows the line of every key."""

from __future__ import annotations

import codecs
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import ConfigurationError
from search_spaces.yaml_nodes import KeyPath, compose, plain_data

PACKAGE_FOLDER = Path(__file__).parent
# Configurations are a few kilobytes; what is far larger is another kind of file, and slow to read.
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class YamlDocument:
    """A configuration and where it comes from.

    Attributes:
        data: The file's mapping as plain dicts, lists and scalars.
        path: The file, or None if the configuration was built by a program.
        lines: The line, counted from 1, of every key and list item, by the keys that lead to it.
    """

    data: dict[Any, Any]
    path: Path | None = None
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, path: Sequence[str | int]) -> int | None:
        """Return the line of a key, or of the nearest key above it that is in the file."""
        keys = tuple(path)
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys)

    def place(self, path: Sequence[str | int]) -> str:
        """Return ``file:line: `` of a key for a message; nothing for a configuration without a file."""
        if self.path is None:
            return ""
        line = self.line(path)
        return f"{self.path}: " if line is None else f"{self.path}:{line}: "


def resolve_config_path(path: str | Path) -> Path:
    """Return where a configuration file is: in the working directory or, if not there, in this package.

    Args:
        path: As the user wrote it; ``~`` is the home folder. An absolute path is taken as it is.

    Raises:
        FileNotFoundError: If it is in neither place; the message names both and a file of a similar name.
    """
    wanted = Path(os.path.expanduser(path))
    # os.path, because pathlib raises for names that are too long or folders that may not be entered.
    if os.path.exists(wanted):
        return wanted
    packaged = PACKAGE_FOLDER / wanted
    if not wanted.is_absolute() and ".." not in wanted.parts and os.path.isfile(packaged):
        return packaged
    raise FileNotFoundError(_missing_text(path, wanted))


def load_yaml(path: str | Path) -> YamlDocument:
    """Read a YAML file whose top level is a mapping.

    ``1e-3`` is a number, anchors and merge keys work, a byte order mark is skipped, and no tag can run code.

    Args:
        path: The file; relative paths start at the working directory.

    Raises:
        FileNotFoundError: If there is no such file.
        yaml.YAMLError: If it is not YAML; the message has file, line and column.
        ConfigurationError: If it cannot be read, is not UTF-8, is empty or too large, is no mapping, or has a
            key twice.
    """
    file = Path(path)
    text = _read_text(file)
    try:
        node = compose(text)
    except yaml.YAMLError as error:
        raise yaml.YAMLError(_syntax_text(file, text, error)) from error
    except RecursionError:
        raise ConfigurationError(f"{file}: nested too deeply to be a configuration; write it flatter") from None
    if node is None:
        raise ConfigurationError(f"{file}: the file is empty; {_START_HERE}")
    data, lines, problems = plain_data(node)
    if problems:
        raise ConfigurationError([f"{file}:{problem}" for problem in problems])
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise ConfigurationError(f"{file}:1: found {kind}; a mapping of keys is expected; {_START_HERE}")
    return YamlDocument(data, file, lines)


_START_HERE = f"start from a copy of {PACKAGE_FOLDER / 'config'}"


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise FileNotFoundError(_missing_text(file, file)) from None
    except IsADirectoryError:
        raise ConfigurationError(f"{file}: is a folder; name a YAML file in it{_yaml_files_in(file)}") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror}); check the file and its rights") from error
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(
            f"{file}: larger than {_MAX_BYTES // 1024} KiB, so it is no configuration; "
            "name a configuration file (a dataset's metadata.yaml belongs under data: metadata_path:)"
        )
    return _decoded(file, content)


def _decoded(file: Path, content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigurationError(f"{file}: the file is UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{file}:{line}: the byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _missing_text(path: str | Path, wanted: Path) -> str:
    places = f"{wanted.absolute()}"
    if not wanted.is_absolute():
        places += f" and {PACKAGE_FOLDER / wanted}"
    return f"configuration file not found: {path}; looked for {places}{_near_file(wanted)}"


def _near_file(wanted: Path) -> str:
    folders = [wanted.absolute().parent]
    if not wanted.is_absolute():
        folders.append(PACKAGE_FOLDER / wanted.parent)
    found = {file.name: file for folder in folders if os.path.isdir(folder) for file in folder.glob("*.y*ml")}
    near = difflib.get_close_matches(wanted.name, found, n=1)
    return f"; did you mean {found[near[0]]}?" if near else "; check the path"


def _yaml_files_in(folder: Path) -> str:
    names = sorted(file.name for file in folder.glob("*.y*ml"))
    return f": {', '.join(names[:5])}" if names else ""


def _syntax_text(file: Path, text: str, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        return f"{file}:{line}:{column}: the character {chr(_code(error))!a} is not allowed in YAML; delete it"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{file}: not valid YAML: {error}"
    mark = error.problem_mark
    context = f" {error.context}" if error.context else ""
    if error.context and error.context_mark is not None and error.context_mark.line != mark.line:
        context += f" that began in line {error.context_mark.line + 1}"
    lines = text.splitlines()
    shown = lines[mark.line].strip() if mark.line < len(lines) else ""
    near = f" near {shown[:60]!r}" if shown else ""
    place = f"{file}:{mark.line + 1}:{mark.column + 1}"
    return f"{place}: not valid YAML: {error.problem}{context}{near}; {_remedy(error)}"


def _remedy(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem)
    if "\\t" in problem:
        return "indent with spaces, not tabs"
    if "alias" in problem:
        return "define the anchor (&name) above the place that uses it (*name)"
    if "tag" in problem:
        return "write plain values without '!' tags"
    if "single document" in str(error.context):
        return "keep one document in the file (no second '---')"
    return "check indentation, colons, brackets and quotes there"


def _code(error: yaml.reader.ReaderError) -> int:
    return error.character if isinstance(error.character, int) else ord(error.character)
