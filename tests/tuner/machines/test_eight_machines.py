"""Eight machines share a study: no trial is lost if one is disconnected, one suspended, one paused and one killed."""

import re
import time
from signal import SIGCONT, SIGSTOP

import pytest
from optuna.trial import TrialState

from studies import read_record
from studies.trials.record import StartedAfter

# Types of conftest.py, which cannot be imported.

EPOCHS = 40
PRESETS = {
    f"rate_{rate}_batch_{batch}": {"learning_rate": rate, "batch_size": batch, "num_epochs": EPOCHS}
    for rate in (0.001, 0.002, 0.003, 0.004, 0.005, 0.006)
    for batch in (8, 12, 16, 32)
}
DISCONNECTED, SUSPENDED, PAUSED, KILLED = "disconnected", "suspended", "paused", "killed"
MACHINES = (DISCONNECTED, SUSPENDED, PAUSED, KILLED, "fifth", "sixth", "seventh", "eighth")
WAITING = "waiting for new trials"
RECONNECTING = "the connection to the database was lost; reconnecting to continue"
TAKEN_OVER = "another worker has taken over this trial, because this worker's lease expired; claiming the next trial"
EPOCH_LINE = re.compile(rf" (\d+)/{EPOCHS}  char ")
LONGEST_S = 90.0
POLL_S = 0.5


@pytest.mark.slow
def test_no_trial_is_lost_when_four_of_eight_machines_fail(network, copy_inputs, copy_data, result_of):
    anna = network.machine("anna")
    config = copy_inputs(anna, PRESETS)
    reference = ["--output-dir", "reference", "--storage", "sqlite:///reference.db", "--workers", 2]
    anna.run("run", "--config", config, *reference)
    first, *_ = PRESETS
    anna.run("run", "--config", config, "--experiments", first)
    jobs = {name: start_worker(network.machine(name), copy_data) for name in MACHINES}
    for job in jobs.values():
        job.wait_for(WAITING)
    anna.run("enqueue", "--config", config)

    numbers = {name: pause_in_a_trial(name, network, jobs[name]) for name in (DISCONNECTED, SUSPENDED, PAUSED, KILLED)}
    cause_failures(network, jobs)
    for name, seconds in wait_for_takeovers(network, numbers).items():
        print(f"{name}: its trial was taken over after {seconds:.1f} s")
    reconnect(network, jobs)
    wait_for_the_end(network)
    network.machine("chan").run("stop")
    outputs = {name: job.end(0) for name, job in jobs.items() if name != KILLED}

    # The note depends on whether the worker was in the middle of a transaction.
    for name in (DISCONNECTED, SUSPENDED):
        assert RECONNECTING in outputs[name] or TAKEN_OVER in outputs[name]
    check_attempts(network, numbers)
    check_no_machine_trains_a_lost_trial(network)
    folder = anna.folder / "reference"
    expected = {trial.name: trial for trial in (result_of(one, folder) for one in reference_trials(network, anna))}
    for trial in network.trials():
        folder = network.machine(network.machines_of(trial)[-1]).folder / "training_output"
        assert result_of(trial, folder) == expected[read_record(trial).experiment_name]
    assert network.passwords_found() == []


def start_worker(machine, copy_data):
    return machine.start("worker", "--wait", "--device", "cpu", "--metadata", copy_data(machine))


def pause_in_a_trial(name, network, job):
    """Pause a machine's worker in the first half of a trial; return the trial's number."""
    while True:
        job.wait_until(lambda: last_printed_epoch(job) in range(3, EPOCHS // 2))
        job.signal(SIGSTOP)
        for trial in network.trials():
            mine = trial.state is TrialState.RUNNING and network.machines_of(trial) == [name]
            if mine and len(trial.intermediate_values) <= EPOCHS // 2:
                return int(trial.number)
        job.signal(SIGCONT)  # its last line was outdated
        time.sleep(POLL_S)


def last_printed_epoch(job):
    """Return the last epoch that a worker has printed for its current trial; 0 before its first epoch."""
    _, _, of_this_trial = job.text.rpartition("\n[")
    epochs = EPOCH_LINE.findall(of_this_trial)
    return int(epochs[-1]) if epochs else 0


def cause_failures(network, jobs):
    """Kill, disconnect and suspend paused machines; one stays paused."""
    jobs[KILLED].kill()
    network.machine(DISCONNECTED).disconnect()
    jobs[DISCONNECTED].signal(SIGCONT)
    # Like a suspended laptop: no process runs, and no machine answers at its address.
    network.machine(SUSPENDED).disconnect()


def wait_for_takeovers(network, numbers):
    """Wait until other machines have taken over the trials; return the seconds that this took, keyed by machine."""
    start = time.monotonic()
    seconds = {}
    while len(seconds) < 3:
        now = time.monotonic() - start
        assert now < LONGEST_S, seconds
        trials = network.trials()
        taken_over = [
            name for name in (DISCONNECTED, SUSPENDED, KILLED) if len(network.machines_of(trials[numbers[name]])) > 1
        ]
        seconds = {name: now for name in taken_over} | seconds
        time.sleep(POLL_S)
    return seconds


def reconnect(network, jobs):
    network.machine(DISCONNECTED).connect()
    network.machine(SUSPENDED).connect()
    for name in (SUSPENDED, PAUSED):
        jobs[name].signal(SIGCONT)


def wait_for_the_end(network):
    deadline = time.monotonic() + 10 * LONGEST_S
    while not all(trial.state.is_finished() for trial in network.trials()):
        assert time.monotonic() < deadline, network.trials()
        time.sleep(POLL_S)


def check_attempts(network, numbers):
    """Check that each preset has one trial, trained by one machine, or by two if the first machine failed."""
    trials = network.trials()
    assert sorted(read_record(trial).experiment_name for trial in trials) == sorted(PRESETS)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    for name in (DISCONNECTED, SUSPENDED, KILLED):
        trial = trials[numbers[name]]
        first, second = network.machines_of(trial)
        assert first == name != second
        assert read_record(trial).attempts[1].after is StartedAfter.CRASH
    taken_over = {numbers[name] for name in (DISCONNECTED, SUSPENDED, KILLED)}
    assert all(len(network.machines_of(trial)) == 1 for trial in trials if trial.number not in taken_over)
    # A paused worker keeps its lease, since its machine still answers.
    assert network.machines_of(trials[numbers[PAUSED]]) == [PAUSED]


def check_no_machine_trains_a_lost_trial(network):
    """Check that a worker that lost its lease stopped after its current epoch."""
    for trial in network.trials():
        attempts = read_record(trial).attempts
        most = dict.fromkeys({*MACHINES, "anna"}, 0)
        following = [attempt.epochs + 1 for attempt in attempts[1:]]
        most |= dict(zip(network.machines_of(trial), [*following, EPOCHS], strict=True))
        trained = {name: epochs_on(network.machine(name), trial) for name in most}
        assert all(trained[name] <= most[name] for name in most), (trained, attempts)
        assert trained[network.machines_of(trial)[-1]] == EPOCHS


def epochs_on(machine, trial):
    path = machine.folder / "training_output" / read_record(trial).experiment_name / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def reference_trials(network, anna):
    trials = network.trials(f"sqlite:///{anna.folder}/reference.db")
    assert len(trials) == len(PRESETS)
    return trials
