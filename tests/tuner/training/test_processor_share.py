import logging
import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
import torch

from tuner.cores import usable_cores
from tuner.training.history import EpochMetrics
from tuner.training.processor_share import ProcessorShare

EPOCH = EpochMetrics(1, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 1e-3, epoch_seconds=6.0, memory_mb=400.0, cpu_percent=190.0)

TRAIN = """
import sys
import tuner.training.processor_share
tuner.training.processor_share._LOW_SECONDS = 0.0
from tuner.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("fractions", "seconds", "machine", "warnings"),
    [
        pytest.param([0.9, 0.9, 0.9, 0.9], 6.0, 100.0, 0, id="idle machine"),
        pytest.param([0.9, 0.1, 0.9, 0.1], 6.0, 100.0, 0, id="process paused repeatedly"),
        pytest.param([0.3, 0.3], 6.0, 100.0, 1, id="busy machine"),
        pytest.param([0.3, 0.3, 0.3, 0.3], 6.0, 50.0, 0, id="network too small for the threads"),
        pytest.param([0.3, 0.3, 0.3, 0.9, 0.3, 0.3, 0.3], 6.0, 100.0, 1, id="one warning per training"),
        pytest.param([0.3, 0.3, 0.3], 1.0, 100.0, 0, id="short epochs"),
    ],
)
def test_warning_if_other_programs_use_the_cpu(fractions, seconds, machine, warnings, caplog, monkeypatch):
    monkeypatch.setattr("psutil.cpu_percent", lambda: machine)
    processor_share = ProcessorShare()
    with caplog.at_level(logging.WARNING):
        for fraction in fractions:
            percent = 100 * min(torch.get_num_threads(), usable_cores()) * fraction
            processor_share.epoch_ended(replace(EPOCH, epoch_seconds=seconds, cpu_percent=percent))
    assert len(caplog.records) == warnings


def test_more_threads_than_cores_cause_no_warning(caplog, monkeypatch):
    monkeypatch.setattr("psutil.cpu_percent", lambda: 100.0)  # this training alone
    threads = torch.get_num_threads()
    torch.set_num_threads(2 * usable_cores())
    try:
        processor_share = ProcessorShare()
        for _ in range(3):
            processor_share.epoch_ended(replace(EPOCH, cpu_percent=95.0 * usable_cores()))
    finally:
        torch.set_num_threads(threads)
    assert not caplog.records


@pytest.mark.slow
def test_warning_about_slow_training_names_cause_and_remedy(tiny_dataset, tmp_path, environment):
    experiments = tmp_path / "experiments.yaml"
    experiments.write_text(
        f"experiments:\n  starved:\n    model: {{name: small}}\n    data: {{metadata_path: {tiny_dataset}}}\n"
        "    training: {batch_size: 32, num_epochs: 3, learning_rate: 0.001}\n"
    )
    command = [sys.executable, "-c", TRAIN, "run", "--config", str(experiments), "--output-dir", "out"]
    busy = []
    try:
        for _ in range(3 * (os.cpu_count() or 1)):
            busy.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        if psutil.cpu_percent(1.0) < 95.0:
            pytest.skip("this process may not use all cores of the machine")
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment | {"OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    warnings = [line for line in (done.stdout + done.stderr).splitlines() if "CPU time" in line]
    assert len(warnings) == 1
    cores = min(2, usable_cores())
    assert f"of {cores} core" in warnings[0]
    assert ("--workers" in warnings[0]) == (cores > 1)


@pytest.mark.parametrize(
    ("variables", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_idle_threads_spin_briefly_unless_the_user_sets_openmp_variables(variables, spins, environment):
    settings = {name: value for name, value in environment.items() if not name.startswith(("OMP_", "GOMP_"))}
    program = "import os, sys, tuner; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", program], env=settings | variables, capture_output=True, text=True)
    assert done.stdout.strip() == str(spins), done.stderr
