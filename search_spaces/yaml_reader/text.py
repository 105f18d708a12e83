"""The text of configuration files, and messages about files that are not text or not valid YAML."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import yaml

from search_spaces.errors import ConfigurationError
from search_spaces.files.regular_files import read_bytes

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
