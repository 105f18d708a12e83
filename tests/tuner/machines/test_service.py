"""A study as a service: workers wait on one machine for what is enqueued from others, whatever the server does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
from optuna.trial import TrialState

# Of conftest.py, which cannot be imported.
Machine = Any
Network = Any
GiveData = Callable[[Machine], Path]
GiveWork = Callable[..., Path]
WriteSpace = Callable[..., Path]

EXPERIMENTS = {
    "one": {"learning_rate": 0.003},
    "two": {"learning_rate": 0.002, "num_epochs": 30},
    "three": {"learning_rate": 0.001},
}
WAITS = "waiting for new trials; SIGTERM or `khmer-tuner stop` ends the worker"


@pytest.mark.slow
def test_a_worker_that_waits_trains_what_is_enqueued_from_any_machine(
    network: Network, give_work: GiveWork, give_data: GiveData, write_space: WriteSpace, postgresql: Any
) -> None:
    anna, bora, chan = (network.machine(name) for name in ("anna", "bora", "chan"))
    begin_with = give_work(anna, EXPERIMENTS)
    space = write_space().rename(anna.folder / "space.yaml")
    anna.do("run", "--config", begin_with, "--experiments", "one", "--space", space)

    data = give_data(bora)
    worker = bora.start("worker", "--wait", "--metadata", data, "--output-dir", "service")
    worker.wait_for(WAITS)
    postgresql.restart()
    anna.do("enqueue", "--config", begin_with, "--experiments", "two")
    worker.wait_for(" 1/30 ")
    postgresql.restart()
    chan.do("enqueue", "--config", give_work(chan, EXPERIMENTS), "--trials", "2")
    worker.wait_for(WAITS, after="search_0004")
    worker.signal(SIGTERM)
    worker.end(143)

    check_states(network)
    check_what_others_are_told(chan)
    check_folders(anna, bora)
    another = bora.start("worker", "--wait", "--metadata", data, "--output-dir", "service")
    another.wait_for(WAITS)
    chan.do("stop")
    another.end(0)
    assert network.passwords_found() == []


def test_who_is_stopped_while_the_server_is_away_does_not_wait_for_it(
    network: Network, give_work: GiveWork, postgresql: Any
) -> None:
    anna = network.machine("anna")
    run = anna.start("run", "--config", give_work(anna, {"one": {"num_epochs": 1000}}))
    run.wait_for(" 2/1000 ")
    postgresql.stop()
    try:
        run.wait_for("the database cannot be reached")
        run.signal(SIGTERM)
        run.end(143)
    finally:
        postgresql.start()


def check_states(network: Network) -> None:
    trials = network.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    one, two, *others = (network.machines_of(trial) for trial in trials)
    assert one == ["anna"]
    # Its connection may have broken when the server went away: then the same worker went on where it was.
    assert set(two) == {"bora"}
    assert list(trials[1].intermediate_values) == list(range(1, 31))
    assert others == [["bora"]] * 3


def check_what_others_are_told(chan: Machine) -> None:
    """Ask in a folder that is not even there."""
    told = chan.ask("status", "--output-dir", "nowhere")
    assert [(trial["name"], trial["state"]) for trial in told["trials"]][:3] == [
        (name, "completed") for name in EXPERIMENTS
    ]
    assert told["workers"] == 0
    chan.do("export", "--results-file", "results.json", "--output-dir", "nowhere")
    results = json.loads((chan.folder / "results.json").read_text())["all_results"]
    assert [(entry["experiment_name"], entry["total_epochs"]) for entry in results[:3]] == [
        ("one", 2),
        ("two", 30),
        ("three", 2),
    ]
    assert len(results) == 5
    assert not (chan.folder / "nowhere").exists()


def check_folders(anna: Machine, bora: Machine) -> None:
    """What a trial leaves is on the machine that trained it."""
    assert trained_in(anna.folder / "training_output") == {"one"}
    assert trained_in(bora.folder / "service") == {"two", "three", "search_0003", "search_0004"}
    assert any((bora.folder / "service" / "artifacts").iterdir())
    assert (bora.folder / "service" / "three" / "checkpoints" / "best.pt").exists()


def trained_in(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/metrics.jsonl")}
