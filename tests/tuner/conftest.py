"""A dataset and networks so small that whole trainings take a second, and configurations that use both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml

from search_spaces import TrainingConfig
from tuner.data.generation import generate_dataset

WriteConfig = Callable[..., Path]
MakeConfig = Callable[..., TrainingConfig]

TINY = {
    "decoder": "attention",
    "stem_channels": [4, 8],
    "stage_channels": [8],
    "blocks_per_stage": 0,
    "width": 16,
    "context_layers": 0,
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The metadata file of 32 training, 8 validation and 10 test images, not to be changed."""
    folder = tmp_path_factory.mktemp("tiny_dataset") / "generated_data"
    return generate_dataset(folder, samples=40, test_samples=10, processes=1)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model definitions file with the networks `tiny` and `tiny_ctc`, not to be changed."""
    path = tmp_path_factory.mktemp("tiny_models") / "tiny_models.yaml"
    path.write_text(yaml.safe_dump({"models": {"tiny": TINY, "tiny_ctc": TINY | {"decoder": "ctc"}}}))
    return path


@pytest.fixture
def write_config(tmp_path: Path, tiny_dataset: Path, tiny_models: Path) -> WriteConfig:
    """Write an experiments file and return its path.

    Each experiment, a mapping of sections, trains the network `tiny` on the tiny dataset for two epochs on the CPU
    unless it says otherwise; keyword arguments are further top-level keys, for example ``targets``.
    """
    base: dict[str, dict[str, Any]] = {
        "model": {"name": "tiny", "config_path": str(tiny_models)},
        "data": {"metadata_path": str(tiny_dataset)},
        "training": {"device": "cpu", "batch_size": 8, "num_epochs": 2, "use_tensorboard": False},
    }

    def write(experiments: Mapping[str, Mapping[str, Any]], *, file_name: str = "experiments.yaml", **top: Any) -> Path:
        merged = {
            name: {**sections, **{key: values | dict(sections.get(key, {})) for key, values in base.items()}}
            for name, sections in experiments.items()
        }
        path = tmp_path / file_name
        text = yaml.safe_dump({"experiments": merged, **top}, sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def tiny_config(tiny_dataset: Path, tiny_models: Path) -> MakeConfig:
    """Make the configuration of a short training of `tiny`; keyword arguments are fields that differ."""
    base = TrainingConfig(
        model_name="tiny",
        model_config_path=str(tiny_models),
        metadata_path=str(tiny_dataset),
        device="cpu",
        batch_size=8,
        num_epochs=2,
        learning_rate=0.003,
        use_tensorboard=False,
    )

    def make(**changes: Any) -> TrainingConfig:
        return replace(base, **changes)

    return make


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def read_results() -> Callable[[Path], dict[str, Any]]:
    """Read a results file as strict JSON, after checking it against the schema written from the reference."""
    schema = json.loads((Path(__file__).parents[1] / "studies" / "results_schema.json").read_text())

    def read(path: Path) -> dict[str, Any]:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
        jsonschema.validate(results, schema)
        return results

    return read


@pytest.fixture(autouse=True)
def _random_state_restored() -> Iterator[None]:
    """Trainings seed PyTorch's global generator; what comes next must not depend on it."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
