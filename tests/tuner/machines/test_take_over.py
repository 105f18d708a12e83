"""A trial whose worker was killed is taken over by another machine, whether that sees the dead one's files or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studies import load_study, read_record
from studies.trials.record import StartedAfter

# Of conftest.py, which cannot be imported.
Machine = Any
Network = Any
GiveData = Callable[[Machine], Path]
GiveWork = Callable[..., Path]
Ended = Callable[..., Any]
Shell = Callable[[list[str], Path], Any]

EPOCHS = 30
EXPERIMENTS = {"one": {"num_epochs": EPOCHS}, "two": {"num_epochs": 2, "learning_rate": 0.002}}


@pytest.fixture(scope="module")
def undisturbed(shell: Shell, give_work: GiveWork, ended: Ended, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the trials find out where nothing happens."""
    calm = SimpleNamespace(name="calm", folder=tmp_path_factory.mktemp("calm"))
    # With as many threads as the machines' processes, so that results repeat to the same bits.
    run = ["env", "OMP_NUM_THREADS=1", "khmer-tuner", "run", "--config", str(give_work(calm, EXPERIMENTS))]
    done = shell(run, calm.folder)
    assert done.returncode == 0, done.stderr
    study, folder = load_study(calm.folder / "training_output")
    return [ended(trial, folder.path) for trial in study.get_trials()]


@pytest.mark.parametrize(
    "shared",
    [pytest.param(False, id="folders of their own"), pytest.param(True, id="shared folder", marks=pytest.mark.slow)],
)
def test_a_trial_whose_worker_was_killed_ends_as_if_nothing_had_happened(
    shared: bool,
    network: Network,
    give_work: GiveWork,
    give_data: GiveData,
    ended: Ended,
    undisturbed: list[Any],
) -> None:
    anna, bora = network.machine("anna"), network.machine("bora")
    folder = network.folder / "shared" if shared else Path("out")
    config = give_work(anna, EXPERIMENTS)
    run = anna.start("run", "--config", config, "--output-dir", folder)
    run.wait_for(f" 3/{EPOCHS} ")
    run.kill()
    data = give_data(bora)
    said = bora.do("worker", "--metadata", data, "--output-dir", folder)

    trials = network.trials()
    assert [network.machines_of(trial) for trial in trials] == [["anna", "bora"], ["bora"]]
    begun, again = read_record(trials[0]).attempts
    assert begun.epochs == 0
    assert again.epochs >= 3
    assert again.after is StartedAfter.CRASH
    lost = f"one: no checkpoints to resume from in {bora.folder / folder / 'one'}; training restarts at epoch 1"
    assert (lost in said) == (not shared)
    assert f"resumes at epoch {again.epochs + 1 if shared else 1}" in said
    assert [ended(trial, bora.folder / folder) for trial in trials] == undisturbed
