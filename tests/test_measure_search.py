"""`scripts/measure_search.py` with few trials: it trains the studies and prints the tables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from studies import load_study, study_status

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_small_measurement_prints_tables(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "measure_search.py"), "--work-dir", str(tmp_path)]
    command += ["--seeds", "3", "--trials", "1", "--epochs", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for pruner in ("none", "quantile"):
        status = study_status(*load_study(tmp_path / f"{pruner}_parallelism1_seed3"))
        assert (status.counts["completed"], status.pending) == (4, 0)
        assert re.search(rf"^ +3  {pruner} +1 +2 ", done.stdout, re.MULTILINE)
    assert "saved" in done.stdout
    assert "gain char / seq" in done.stdout
    assert re.search(r"^quantile +1 +2 +0\.\d{4} \(sd 0\.0000\)", done.stdout, re.MULTILINE)
