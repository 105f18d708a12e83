"""The experiments that are trained while a study is polled: their files, their training, their epochs."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml
from harness.fixture_study import OUTPUT, RESULTS
from harness.processes import command, failure, give, problem_of, started
from harness.run import HarnessError

EXPERIMENTS = 4
WORKERS = 2
_SAMPLES = 400


def generate_data(folder: Path) -> None:
    """Generate the dataset in the work folder.

    Raises:
        HarnessError: It cannot be generated.
    """
    if problem := problem_of(give(folder, "data", "--samples", str(_SAMPLES), "--test-samples", "10", "--out", "data")):
        raise HarnessError(f"the dataset cannot be generated: {problem}")


def write_experiments(path: Path, epochs: int) -> None:
    """Write experiments of several learning rates that train exactly this many epochs."""
    shared = {
        "model": {"name": "small"},
        "data": {"metadata_path": "../data/metadata.yaml"},
        "early_stopping": {"patience": 100_000},
    }
    experiments = {
        f"rate_{number}": shared
        | {"training": {"num_epochs": epochs, "device": "cpu", "learning_rate": 0.001 * number}}
        for number in range(1, EXPERIMENTS + 1)
    }
    path.write_text(yaml.safe_dump({"experiments": experiments}), encoding="utf-8")


@contextlib.contextmanager
def training(study: Path, experiments: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Train experiments in a study's folder; leaving the block waits for the end.

    Raises:
        HarnessError: The training failed.
    """
    places = ["--output-dir", OUTPUT, "--results-file", RESULTS]
    words = command("run", "--config", str(experiments), *places, "--workers", str(WORKERS))
    with started(words, study) as process:
        yield process
        if code := process.wait():
            raise failure(words, study, code)


def epochs_of(study: Path) -> list[dict[str, float]]:
    """Return the metrics of a study's epochs, without the first one of each experiment."""
    files = sorted((study / OUTPUT).glob("*/metrics.jsonl"))
    lines = (itertools.islice(file.read_text(encoding="utf-8").splitlines(), 1, None) for file in files)
    return [json.loads(line) for line in itertools.chain.from_iterable(lines)]
