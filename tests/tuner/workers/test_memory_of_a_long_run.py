import subprocess
import sys
from pathlib import Path

import pytest

TRIALS = 100
WORKER = Path(__file__).with_name("memory_worker.py")


@pytest.mark.slow
def test_memory_does_not_grow_from_twenty_to_a_hundred_trials(write_config, write_space, tmp_path):
    config = write_config({"one": {"training": {"num_epochs": 1, "use_tensorboard": True}}})
    space = write_space(base={"num_epochs": 1})
    done = subprocess.run(
        [sys.executable, str(WORKER), str(config), str(space), str(tmp_path / "out"), str(TRIALS - 1)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    used = [float(line) for line in done.stdout.split()]
    assert len(used) == TRIALS
    # In the first trials, memory grows until the garbage collector runs for the first time.
    assert max(used[20:]) <= 1.05 * used[19], " ".join(f"{mib:.0f}" for mib in used)
