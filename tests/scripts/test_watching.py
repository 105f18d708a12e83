"""Monitoring does not affect training: `scripts/watch_harness.py`, for a short while."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "scripts" / "watch_harness.py"


@pytest.mark.slow
def test_a_study_that_is_polled_all_the_time_equals_one_that_is_left_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--minutes", "0.2", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "polls that failed: 0\nitems of the study that differ: 0 of " in done.stdout
    for name in ("dashboard", "status", "export", "report", "refused"):
        assert f" x {name}" in done.stdout
