"""A study continues although its server crashes and restarts six times."""

import random
import re
import time

import pytest
from optuna.trial import TrialState

from studies import read_record
from studies.trials.record import StartedAfter

# Types of conftest.py, which cannot be imported.

EPOCHS = 24
PRESETS = {f"preset_{number}": {"num_epochs": EPOCHS, "learning_rate": number / 1000} for number in range(1, 7)}
SEARCH_TRIALS = 4
RESTARTS = 6
SEED = 1
EPOCH_LINE = re.compile(r" \d+/\d+  char ")


@pytest.mark.slow
def test_run_survives_restarts_of_the_server(network, copy_inputs, write_space, result_of, postgresql):
    anna = network.machine("anna")
    config = copy_inputs(anna, PRESETS)
    space = write_space(base={"num_epochs": EPOCHS}).rename(anna.folder / "space.yaml")
    # Sampling and pruning must not depend on the order in which trials finish.
    search = ["--space", space, "--trials", SEARCH_TRIALS, "--sampler", "random", "--pruner", "none"]
    arguments = ["run", "--config", config, *search, "--workers", 2]
    anna.run(*arguments, "--output-dir", "reference", "--storage", "sqlite:///reference.db")

    run = anna.start(*arguments, "--output-dir", "restarted")
    restart_at_random_times(postgresql, run, random.Random(SEED))
    run.end(0)

    reference = network.trials(f"sqlite:///{anna.folder}/reference.db")
    expected = [result_of(trial, anna.folder / "reference") for trial in reference]
    trials = network.trials()
    again = [attempt.after for trial in trials for attempt in read_record(trial).attempts[1:]]
    print(f"{RESTARTS} restarts; resumed trials: {len(again)}")
    # A worker that loses its connection interrupts its trial; no process was killed.
    assert set(again) <= {StartedAfter.STOP}
    assert [result_of(trial, anna.folder / "restarted") for trial in trials] == expected
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(trials) == len(PRESETS) + SEARCH_TRIALS
    assert network.passwords_found() == []


def restart_at_random_times(server, run, generator):
    """Restart a server at random times during a run, up to the last epochs."""
    epochs = EPOCHS * (len(PRESETS) + SEARCH_TRIALS)
    for moment in sorted(generator.sample(range(5, epochs * 9 // 10), RESTARTS)):
        run.wait_until(lambda moment=moment: len(EPOCH_LINE.findall(run.text)) >= moment)
        time.sleep(generator.uniform(0, 0.3))
        assert run.process.poll() is None, run.text
        server.restart()
