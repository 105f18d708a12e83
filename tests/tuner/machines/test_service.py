"""A study as a service: workers wait on one machine for trials that other machines enqueue; the server restarts."""

import json
from signal import SIGTERM

import pytest
from optuna.trial import TrialState

# Types of conftest.py, which cannot be imported.

EXPERIMENTS = {
    "one": {"learning_rate": 0.003},
    "two": {"learning_rate": 0.002, "num_epochs": 30},
    "three": {"learning_rate": 0.001},
}
WAITING = "waiting for new trials; SIGTERM or `khmer-tuner stop` ends the worker"


@pytest.mark.slow
def test_waiting_worker_trains_trials_enqueued_from_any_machine(
    network, copy_inputs, copy_data, write_space, postgresql
):
    anna, bora, chan = (network.machine(name) for name in ("anna", "bora", "chan"))
    config = copy_inputs(anna, EXPERIMENTS)
    space = write_space().rename(anna.folder / "space.yaml")
    anna.run("run", "--config", config, "--experiments", "one", "--space", space)

    data = copy_data(bora)
    worker = bora.start("worker", "--wait", "--metadata", data, "--output-dir", "service")
    worker.wait_for(WAITING)
    postgresql.restart()
    anna.run("enqueue", "--config", config, "--experiments", "two")
    worker.wait_for(" 1/30 ")
    postgresql.restart()
    chan.run("enqueue", "--config", copy_inputs(chan, EXPERIMENTS), "--trials", "2")
    worker.wait_for(WAITING, after="search_0004")
    worker.signal(SIGTERM)
    worker.end(143)

    check_states(network)
    check_outputs_on_another_machine(chan)
    check_folders(anna, bora)
    second = bora.start("worker", "--wait", "--metadata", data, "--output-dir", "service")
    second.wait_for(WAITING)
    chan.run("stop")
    second.end(0)
    assert network.passwords_found() == []


def test_stopped_run_does_not_wait_for_a_stopped_server(network, copy_inputs, postgresql):
    anna = network.machine("anna")
    run = anna.start("run", "--config", copy_inputs(anna, {"one": {"num_epochs": 1000}}))
    run.wait_for(" 2/1000 ")
    postgresql.stop()
    try:
        run.wait_for("the database cannot be reached")
        run.signal(SIGTERM)
        run.end(143)
    finally:
        postgresql.start()


def check_states(network):
    trials = network.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    one, two, *others = (network.machines_of(trial) for trial in trials)
    assert one == ["anna"]
    # If the restart broke the connection, the same worker has resumed the trial.
    assert set(two) == {"bora"}
    assert list(trials[1].intermediate_values) == list(range(1, 31))
    assert others == [["bora"]] * 3


def check_outputs_on_another_machine(chan):
    """Check `status` and `export` with an output folder that does not exist."""
    status = chan.run_json("status", "--output-dir", "nowhere")
    assert [(trial["name"], trial["state"]) for trial in status["trials"]][:3] == [
        (name, "completed") for name in EXPERIMENTS
    ]
    assert status["workers"] == 0
    chan.run("export", "--results-file", "results.json", "--output-dir", "nowhere")
    results = json.loads((chan.folder / "results.json").read_text())["all_results"]
    assert [(entry["experiment_name"], entry["total_epochs"]) for entry in results[:3]] == [
        ("one", 2),
        ("two", 30),
        ("three", 2),
    ]
    assert len(results) == 5
    assert not (chan.folder / "nowhere").exists()


def check_folders(anna, bora):
    """Check that the files of a trial are on the machine that trained it."""
    assert trained_in(anna.folder / "training_output") == {"one"}
    assert trained_in(bora.folder / "service") == {"two", "three", "search_0003", "search_0004"}
    assert any((bora.folder / "service" / "artifacts").iterdir())
    assert (bora.folder / "service" / "three" / "checkpoints" / "best.pt").exists()


def trained_in(folder):
    return {path.parent.name for path in folder.glob("*/metrics.jsonl")}
