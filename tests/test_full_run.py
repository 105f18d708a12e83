"""The first command of the README with the full dataset: minutes of training, so only CI runs it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRESETS = ("conservative_small", "baseline_optimized", "high_learning_rate")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def full_run(tmp_path_factory):
    """Train the documented presets on the default dataset; return the output folder and the results, keyed by name."""
    folder = tmp_path_factory.mktemp("full_run")
    results, output = folder / "results.json", folder / "output"
    subprocess.run(
        ["bash", str(ROOT / "scripts" / "run.sh"), "--output-dir", str(output), "--results-file", str(results)],
        check=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"NO_COLOR": "1"},
    )
    entries = json.loads(results.read_text(encoding="utf-8"))["all_results"]
    return output, {entry["experiment_name"]: entry for entry in entries}


@pytest.mark.parametrize("name", PRESETS)
def test_preset_reaches_high_validation_accuracy(full_run, name):
    entry = full_run[1][name]
    assert entry["status"] == "completed"
    assert entry["best_val_char_accuracy"] >= 0.99
    assert entry["best_val_seq_accuracy"] >= 0.97


@pytest.mark.parametrize("name", PRESETS)
def test_test_accuracy_is_close_to_the_validation_accuracy(full_run, name):
    output, entries = full_run
    command = [str(ROOT / ".venv" / "bin" / "khmer-tuner"), "evaluate", "--json"]
    command += ["--metadata", str(ROOT / "generated_data" / "metadata.yaml"), "--split", "test"]
    command += ["--checkpoint", str(output / name / "checkpoints" / "best.pt")]
    scored = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert scored["char_accuracy"] >= entries[name]["best_val_char_accuracy"] - 0.01
    assert scored["char_accuracy"] >= 0.98
    assert scored["seq_accuracy"] >= 0.95


@pytest.mark.parametrize("name", ["conservative_small", "baseline_optimized"])
def test_exported_preset_reads_like_its_checkpoint(full_run, name, tmp_path):
    checkpoint, exported = full_run[0] / name / "checkpoints" / "best.pt", tmp_path / "reader.onnx"
    metadata = str(ROOT / "generated_data" / "metadata.yaml")

    def run(*argv):
        command = [str(ROOT / ".venv" / "bin" / "khmer-tuner"), *map(str, argv)]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout

    export = ["export-model", "--output-dir", full_run[0], "--trial", name, "--metadata", metadata]
    assert "read all 1,000 validation images identically" in run(*export)
    assert exported.stat().st_size < {"conservative_small": 1_000_000, "baseline_optimized": 2_000_000}[name]
    score = ["evaluate", "--json", "--metadata", metadata, "--split", "test", "--checkpoint"]
    of_checkpoint, of_exported = (json.loads(run(*score, path)) for path in (checkpoint, exported))
    del of_checkpoint["checkpoint"], of_exported["checkpoint"], of_checkpoint["loss"], of_exported["loss"]
    assert of_exported == of_checkpoint  # with the confusion matrix: the same mistakes
