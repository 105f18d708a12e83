"""A working folder for bad input, and the rule for every refused input.

The rule: exit code 2; a line for each problem with its location, what was found, what was expected and what to do; no
traceback; nothing on standard output; no file created or changed.
"""

import hashlib

import pytest

from search_spaces.yaml_reader.file import PACKAGE_FOLDER


@pytest.fixture
def paths(working_dir, write_config, tiny_dataset, tiny_models):
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
def refused(cli, paths, tmp_path):
    """Call a command, check the rule, and return the problems that it reports."""

    def call(argv):
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


def _content(folder):
    """Return all paths below a folder, with the digest and the modification time of each file."""
    return {str(path.relative_to(folder)): _state(path) for path in sorted(folder.rglob("*"))}


def _state(path):
    if not path.is_file():
        return "no file"
    return f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def with_paths(text, paths):
    """Return a text of the corpus with its placeholders replaced."""
    for name, path in paths.items():
        text = text.replace(name, path)
    return text


def _with_placeholders(text, paths):
    # Longer paths first, because one path can contain another.
    for name, path in sorted(paths.items(), key=lambda item: -len(item[1])):
        text = text.replace(path, name)
    return text
