"""`measure_export.py` compares checkpoint, exported model and int8 model."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import yaml

from tuner.hyperparameter_tuner import HyperparameterTuner, RunOptions

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the quantizer about itself
def test_table_has_a_row_for_each_runtime(
    tiny_dataset: Path,
    tiny_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment = {
        "model": {"name": "tiny", "config_path": str(tiny_models)},
        "data": {"metadata_path": str(tiny_dataset)},
        "training": {"device": "cpu", "num_epochs": 2, "batch_size": 8, "use_tensorboard": False},
    }
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({"experiments": {"one": experiment}}))
    options = RunOptions(output_dir=tmp_path / "out", results_file=str(tmp_path / "results.json"))
    HyperparameterTuner(str(tmp_path / "one.yaml"), options=options).run_experiments()
    checkpoint = tmp_path / "out" / "one" / "checkpoints" / "best.pt"
    argv = ["measure_export.py", "--metadata", str(tiny_dataset), "--checkpoint", str(checkpoint)]
    monkeypatch.setattr("sys.argv", argv)
    script = runpy.run_path(str(SCRIPTS / "measure_export.py"))["main"].__globals__
    script.update(PASSES=2, STARTS=1, CALIBRATION_IMAGES=8)
    capsys.readouterr()
    script["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == str(checkpoint)
    assert lines[3].startswith("PyTorch and ONNX Runtime read all 8 validation images identically")
    rows = [line.split() for line in lines[5:]]
    assert [row[0] for row in rows] == ["torch", "onnx", "onnx"]
    assert [row[1] for row in rows[:2]] == [f"{checkpoint.stat().st_size / 1e6:.2f}", rows[1][1]]
    assert rows[0][2:4] == rows[1][2:4] == ["1.0000", "1.0000"]
    assert all(float(row[-1]) > 0 for row in rows)
