"""A working folder for bad input, and the rule for every refused input.

The rule: exit code 2; a line for each problem with its location, what was found, what was expected and what to do; no
traceback; nothing on standard output; no file created or changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from search_spaces.yaml_reader.file import PACKAGE_FOLDER

Refused = Callable[..., list[str]]


@pytest.fixture
def paths(
    working_dir: Path, write_config: Callable[..., Path], tiny_dataset: Path, tiny_models: Path
) -> dict[str, str]:
    """The paths that replace the placeholders of the corpus."""
    return {
        "<here>": str(working_dir),
        "<above>": str(working_dir.parent),
        "<config>": str(write_config({"one": {}, "two": {}})),
        "<metadata>": str(tiny_dataset),
        "<models>": str(tiny_models),
        "<package>": str(PACKAGE_FOLDER),
    }


@pytest.fixture
def refused(cli: Callable[..., Any], paths: Mapping[str, str], tmp_path: Path) -> Refused:
    """Call a command, check the rule, and return the problems that it reports."""

    def call(argv: Sequence[str]) -> list[str]:
        before = _content(tmp_path)
        outcome = cli(*(with_paths(word, paths) for word in argv))
        lines = outcome.err.splitlines()
        problems = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        assert outcome.code == 2, outcome.err
        # `validate` prints the plan before it reads the images.
        assert outcome.out == "" or (argv[0] == "validate" and "valid\n" not in outcome.out)
        assert "Traceback" not in outcome.err
        assert all(line.isprintable() for line in lines)
        assert problems
        assert len(problems) == 1 or f"{len(problems)} problems" in lines
        assert _content(tmp_path) == before
        return [_with_placeholders(text, paths) for text in problems]

    return call


def _content(folder: Path) -> dict[str, str]:
    """Return all paths below a folder, with the digest and the modification time of each file."""
    return {str(path.relative_to(folder)): _state(path) for path in sorted(folder.rglob("*"))}


def _state(path: Path) -> str:
    if not path.is_file():
        return "no file"
    return f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def with_paths(text: str, paths: Mapping[str, str]) -> str:
    """Return a text of the corpus with its placeholders replaced."""
    for name, path in paths.items():
        text = text.replace(name, path)
    return text


def _with_placeholders(text: str, paths: Mapping[str, str]) -> str:
    # Longer paths first, because one path can contain another.
    for name, path in sorted(paths.items(), key=lambda item: -len(item[1])):
        text = text.replace(path, name)
    return text
