"""`scripts/measure_ray.py` with two short trials."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_ray.py"


@pytest.mark.slow
def test_measurement_prints_the_throughput_of_both_kinds_of_workers(environment, tmp_path):
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--pairs", "1", "--presets", "2", "--epochs", "1", "--samples", "50"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rates = [float(rate) for rate in re.findall(r"workers +(\d+) +\d+\.\d s$", done.stdout, re.MULTILINE)]
    assert len(rates) == 2
    assert min(rates) > 0
    assert re.search(r"^median ratio +\d\.\d{3}$", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
