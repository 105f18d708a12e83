"""Eight machines share a study; one is cut off, one falls asleep, one is stopped, one is killed: nothing is lost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from studies import read_record
from studies.trials.record import StartedAfter

# Of conftest.py, which cannot be imported.
Job = Any
Machine = Any
Network = Any
GiveData = Callable[[Machine], Path]
GiveWork = Callable[..., Path]
Ended = Callable[..., Any]

EPOCHS = 20
PRESETS = {
    f"rate_{rate}_batch_{batch}": {"learning_rate": rate, "batch_size": batch, "num_epochs": EPOCHS}
    for rate in (0.001, 0.002, 0.003, 0.004, 0.005, 0.006)
    for batch in (8, 12, 16, 32)
}
CUT_OFF, ASLEEP, STOPPED, KILLED = "cut-off", "asleep", "stopped", "killed"
MACHINES = (CUT_OFF, ASLEEP, STOPPED, KILLED, "fifth", "sixth", "seventh", "eighth")
WAITS = "waiting for new trials"
BROKE = "the connection to the database was lost; reconnecting to continue"
TAKEN_OVER = "another worker has taken over this trial, because this worker's lease expired; claiming the next trial"
AN_EPOCH = re.compile(rf" (\d+)/{EPOCHS}  char ")
LONGEST_S = 90.0
POLL_S = 0.5


@pytest.mark.slow
def test_eight_machines_lose_nothing_whatever_becomes_of_four(
    network: Network, give_work: GiveWork, give_data: GiveData, ended: Ended
) -> None:
    anna = network.machine("anna")
    config = give_work(anna, PRESETS)
    calm = ["--output-dir", "calm", "--storage", "sqlite:///calm.db", "--workers", 2]
    anna.do("run", "--config", config, *calm)
    first, *_ = PRESETS
    anna.do("run", "--config", config, "--experiments", first)
    jobs = {name: start_worker(network.machine(name), give_data) for name in MACHINES}
    for job in jobs.values():
        job.wait_for(WAITS)
    anna.do("enqueue", "--config", config)

    begun = {name: pause_in_a_trial(name, network, jobs[name]) for name in (CUT_OFF, ASLEEP, STOPPED, KILLED)}
    disturb(network, jobs)
    for name, seconds in wait_for_take_overs(network, begun).items():
        print(f"{name}: its trial was taken over after {seconds:.1f} s")
    mend(network, jobs)
    wait_for_the_end(network)
    network.machine("chan").do("stop")
    said = {name: job.end(0) for name, job in jobs.items() if name != KILLED}

    # Which of the two depends on whether it was in the midst of a transaction.
    for name in (CUT_OFF, ASLEEP):
        assert BROKE in said[name] or TAKEN_OVER in said[name]
    check_attempts(network, begun)
    check_nobody_trains_in_vain(network)
    expected = {trial.name: trial for trial in (ended(one, anna.folder / "calm") for one in calm_trials(network, anna))}
    for trial in network.trials():
        folder = network.machine(network.machines_of(trial)[-1]).folder / "training_output"
        assert ended(trial, folder) == expected[read_record(trial).experiment_name]
    assert network.passwords_found() == []


def start_worker(machine: Machine, give_data: GiveData) -> Job:
    return machine.start("worker", "--wait", "--device", "cpu", "--metadata", give_data(machine))


def pause_in_a_trial(name: str, network: Network, job: Job) -> int:
    """Stop a machine's worker in the first half of a trial; return the trial's number."""
    while True:
        job.wait_until(lambda: epoch_said(job) in range(3, EPOCHS // 2))
        job.signal(SIGSTOP)
        for trial in network.trials():
            mine = trial.state is TrialState.RUNNING and network.machines_of(trial) == [name]
            if mine and len(trial.intermediate_values) <= EPOCHS // 2:
                return int(trial.number)
        job.signal(SIGCONT)  # what it had said was old
        time.sleep(POLL_S)


def epoch_said(job: Job) -> int:
    """Return the last epoch that a worker has told of the trial that it is at; 0 if none."""
    _, _, of_this_trial = job.said.rpartition("\n[")
    epochs = AN_EPOCH.findall(of_this_trial)
    return int(epochs[-1]) if epochs else 0


def disturb(network: Network, jobs: Mapping[str, Job]) -> None:
    """Let other things become of those that are stopped; one just stays so."""
    jobs[KILLED].kill()
    network.machine(CUT_OFF).cut_off()
    jobs[CUT_OFF].signal(SIGCONT)
    # As when a lid is closed: it does nothing, and nobody answers in its place.
    network.machine(ASLEEP).cut_off()


def wait_for_take_overs(network: Network, begun: Mapping[str, int]) -> dict[str, float]:
    """Wait until others have taken the trials over; return after how many seconds, by machine."""
    began = time.monotonic()
    seconds: dict[str, float] = {}
    while len(seconds) < 3:
        now = time.monotonic() - began
        assert now < LONGEST_S, seconds
        trials = network.trials()
        taken = [name for name in (CUT_OFF, ASLEEP, KILLED) if len(network.machines_of(trials[begun[name]])) > 1]
        seconds = {name: now for name in taken} | seconds
        time.sleep(POLL_S)
    return seconds


def mend(network: Network, jobs: Mapping[str, Job]) -> None:
    network.machine(CUT_OFF).connect()
    network.machine(ASLEEP).connect()
    for name in (ASLEEP, STOPPED):
        jobs[name].signal(SIGCONT)


def wait_for_the_end(network: Network) -> None:
    deadline = time.monotonic() + 10 * LONGEST_S
    while not all(trial.state.is_finished() for trial in network.trials()):
        assert time.monotonic() < deadline, network.trials()
        time.sleep(POLL_S)


def check_attempts(network: Network, begun: Mapping[str, int]) -> None:
    """Each preset was trained once, but for what three of the disturbed had begun."""
    trials = network.trials()
    assert sorted(read_record(trial).experiment_name for trial in trials) == sorted(PRESETS)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    for name in (CUT_OFF, ASLEEP, KILLED):
        trial = trials[begun[name]]
        mine, other = network.machines_of(trial)
        assert mine == name != other
        assert read_record(trial).attempts[1].after is StartedAfter.CRASH
    taken_over = {begun[name] for name in (CUT_OFF, ASLEEP, KILLED)}
    assert all(len(network.machines_of(trial)) == 1 for trial in trials if trial.number not in taken_over)
    # Its machine has answered for it.
    assert network.machines_of(trials[begun[STOPPED]]) == [STOPPED]


def check_nobody_trains_in_vain(network: Network) -> None:
    """Whoever lost a trial has left it after the epoch that it was in."""
    for trial in network.trials():
        attempts = read_record(trial).attempts
        most = dict.fromkeys({*MACHINES, "anna"}, 0)
        following = [attempt.epochs + 1 for attempt in attempts[1:]]
        most |= dict(zip(network.machines_of(trial), [*following, EPOCHS], strict=True))
        trained = {name: epochs_on(network.machine(name), trial) for name in most}
        assert all(trained[name] <= most[name] for name in most), (trained, attempts)
        assert trained[network.machines_of(trial)[-1]] == EPOCHS


def epochs_on(machine: Machine, trial: FrozenTrial) -> int:
    path = machine.folder / "training_output" / read_record(trial).experiment_name / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def calm_trials(network: Network, anna: Machine) -> list[FrozenTrial]:
    trials: list[FrozenTrial] = network.trials(f"sqlite:///{anna.folder}/calm.db")
    assert len(trials) == len(PRESETS)
    return trials
