from pathlib import Path

import pytest

from search_spaces import load_model_definitions


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def definitions():
    """The default models: small, medium, large and ctc."""
    return load_model_definitions("config/model_config.yaml")


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file into the (empty) working directory and returns its relative path."""

    def _write(content, name="config.yaml"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return Path(name)

    return _write
