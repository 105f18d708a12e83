"""`scripts/watch_harness.py` for a short time: monitoring does not affect training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "scripts" / "watch_harness.py"


@pytest.mark.slow
def test_polled_study_equals_unpolled_study(tmp_path):
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--minutes", "0.1", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed polls: 0\nitems that differ between the two studies: 0 of " in done.stdout
    for name in ("dashboard", "status", "export", "report", "refused"):
        assert f" x {name}" in done.stdout
