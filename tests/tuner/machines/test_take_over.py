"""Another machine takes over the trial of a killed worker, with or without a shared output folder."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from studies import load_study, read_record
from studies.trials.record import StartedAfter

# Types of conftest.py, which cannot be imported.

EPOCHS = 30
EXPERIMENTS = {"one": {"num_epochs": EPOCHS}, "two": {"num_epochs": 2, "learning_rate": 0.002}}


@pytest.fixture(scope="module")
def reference(shell, copy_inputs, result_of, tmp_path_factory):
    """Return the results of the trials in a study without an interruption."""
    machine = SimpleNamespace(name="reference", folder=tmp_path_factory.mktemp("reference"))
    # With the same number of threads as on the machines, so that the results are equal bit for bit.
    run = ["env", "OMP_NUM_THREADS=1", "khmer-tuner", "run", "--config", str(copy_inputs(machine, EXPERIMENTS))]
    done = shell(run, machine.folder)
    assert done.returncode == 0, done.stderr
    study, folder = load_study(machine.folder / "training_output")
    return [result_of(trial, folder.path) for trial in study.get_trials()]


@pytest.mark.parametrize(
    "shared",
    [pytest.param(False, id="separate folders"), pytest.param(True, id="shared folder", marks=pytest.mark.slow)],
)
def test_result_is_unchanged_after_another_machine_takes_over_a_trial(
    shared, network, copy_inputs, copy_data, result_of, reference
):
    anna, bora = network.machine("anna"), network.machine("bora")
    folder = network.folder / "shared" if shared else Path("out")
    config = copy_inputs(anna, EXPERIMENTS)
    run = anna.start("run", "--config", config, "--output-dir", folder)
    run.wait_for(f" 3/{EPOCHS} ")
    run.kill()
    data = copy_data(bora)
    output = bora.run("worker", "--metadata", data, "--output-dir", folder)

    trials = network.trials()
    assert [network.machines_of(trial) for trial in trials] == [["anna", "bora"], ["bora"]]
    first, second = read_record(trials[0]).attempts
    assert first.epochs == 0
    assert second.epochs >= 3
    assert second.after is StartedAfter.CRASH
    lost = f"one: no checkpoints to resume from in {bora.folder / folder / 'one'}; training restarts at epoch 1"
    assert (lost in output) == (not shared)
    assert f"resumes at epoch {second.epochs + 1 if shared else 1}" in output
    assert [result_of(trial, bora.folder / folder) for trial in trials] == reference
