"""The corpus: bad files, names, options and storage URLs, each with the problems that must be reported.

Each YAML file in this folder is an area: a command (`argv`), the file for the inputs (`file`), and the named inputs.
An input has a `text` (or bytes) for the file, or its own `argv`, and the expected `problems`.
"""

from pathlib import Path

import pytest
import yaml

AREAS = sorted(Path(__file__).parent.glob("*.yaml"))


def _inputs():
    for path in AREAS:
        area = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, entry in area["inputs"].items():
            yield pytest.param(area, entry, id=f"{path.stem}: {name}")


@pytest.mark.parametrize(("area", "entry"), list(_inputs()))
def test_bad_input_is_refused_with_the_expected_problems(area, entry, working_dir, paths, refused):
    for name, text in area.get("files", {}).items():
        write(working_dir / name, text, paths)
    if "text" in entry:
        write(working_dir / area["file"], entry["text"], paths)
    assert refused(entry.get("argv", area.get("argv"))) == entry["problems"]


def write(path, text, paths):
    if isinstance(text, str):
        for placeholder, actual in paths.items():
            text = text.replace(placeholder, actual)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_corpus_is_large_and_every_problem_has_a_remedy():
    entries = [param.values[1] for param in _inputs()]
    assert len(entries) >= 300
    assert {path.stem for path in AREAS} >= {
        "configuration",
        "metadata",
        "models",
        "names",
        "options",
        "space",
        "storage",
    }
    problems = [text for entry in entries for text in entry["problems"]]
    assert [
        text for text in problems if ";" not in text and "expected" not in text and not text.startswith("...")
    ] == []
