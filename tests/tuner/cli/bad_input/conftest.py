"""A working folder for bad input, and the rule that everything refused has to keep.

The rule: exit code 2; a line for each problem that says where it is, what was found, why that is wrong and what to
write instead; no traceback; nothing on standard output; nothing created or changed.
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
def places(here: Path, write_config: Callable[..., Path], tiny_dataset: Path, tiny_models: Path) -> dict[str, str]:
    """What stands for what in the corpus: the working folder, sound files, and the folder of the packaged ones."""
    return {
        "<here>": str(here),
        "<above>": str(here.parent),
        "<config>": str(write_config({"one": {}, "two": {}})),
        "<metadata>": str(tiny_dataset),
        "<models>": str(tiny_models),
        "<package>": str(PACKAGE_FOLDER),
    }


@pytest.fixture
def refused(cli: Callable[..., Any], places: Mapping[str, str], tmp_path: Path) -> Refused:
    """Call a command, check that it keeps the rule, and return what it says, a line for each problem."""

    def call(argv: Sequence[str]) -> list[str]:
        before = _content(tmp_path)
        outcome = cli(*(filled_in(word, places) for word in argv))
        lines = outcome.err.splitlines()
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        assert outcome.code == 2, outcome.err
        # The plan is shown before the images are read.
        assert outcome.out == "" or (argv[0] == "validate" and "valid\n" not in outcome.out)
        assert "Traceback" not in outcome.err
        assert all(line.isprintable() for line in lines)
        assert told
        assert len(told) == 1 or f"{len(told)} problems" in lines
        assert _content(tmp_path) == before
        return [_taken_out(text, places) for text in told]

    return call


def _content(folder: Path) -> dict[str, str]:
    """Return all that is below a folder, with a digest of what is in each file and when it was written."""
    return {str(path.relative_to(folder)): _state(path) for path in sorted(folder.rglob("*"))}


def _state(path: Path) -> str:
    if not path.is_file():
        return "no file"
    return f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def filled_in(text: str, places: Mapping[str, str]) -> str:
    """Return a text of the corpus with this test's places."""
    for name, place in places.items():
        text = text.replace(name, place)
    return text


def _taken_out(text: str, places: Mapping[str, str]) -> str:
    # Longer ones first: the sound files may lie below the working folder's parent.
    for name, place in sorted(places.items(), key=lambda item: -len(item[1])):
        text = text.replace(place, name)
    return text
