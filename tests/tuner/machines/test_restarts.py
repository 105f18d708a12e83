"""A study goes on while its server crashes and comes back, again and again."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from studies import read_record
from studies.trials.record import StartedAfter

# Of conftest.py, which cannot be imported.
Job = Any
Machine = Any
Network = Any
GiveWork = Callable[..., Path]
WriteSpace = Callable[..., Path]
Ended = Callable[..., Any]

EPOCHS = 40
PRESETS = {f"preset_{number}": {"num_epochs": EPOCHS, "learning_rate": number / 1000} for number in range(1, 7)}
SEARCH_TRIALS = 4
RESTARTS = 10
SEED = 1
AN_EPOCH = re.compile(r" \d+/\d+  char ")


@pytest.mark.slow
def test_restarts_of_the_server_are_ridden_out(
    network: Network, give_work: GiveWork, write_space: WriteSpace, ended: Ended, postgresql: Any
) -> None:
    anna = network.machine("anna")
    config = give_work(anna, PRESETS)
    space = write_space(base={"num_epochs": EPOCHS}).rename(anna.folder / "space.yaml")
    # What is drawn and whether it goes on must not depend on who is ahead of whom.
    search = ["--space", space, "--trials", SEARCH_TRIALS, "--sampler", "random", "--pruner", "none"]
    words = ["run", "--config", config, *search, "--workers", 2]
    anna.do(*words, "--output-dir", "calm", "--storage", "sqlite:///calm.db")

    run = anna.start(*words, "--output-dir", "restless")
    restart_now_and_then(postgresql, run, random.Random(SEED))
    run.end(0)

    expected = [ended(trial, anna.folder / "calm") for trial in network.trials(f"sqlite:///{anna.folder}/calm.db")]
    trials = network.trials()
    again = [attempt.after for trial in trials for attempt in read_record(trial).attempts[1:]]
    print(f"{RESTARTS} restarts ridden out; trials that were begun again: {len(again)}")
    # A worker whose connection broke has let go of its trial; nobody died.
    assert set(again) <= {StartedAfter.STOP}
    assert [ended(trial, anna.folder / "restless") for trial in trials] == expected
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(trials) == len(PRESETS) + SEARCH_TRIALS
    assert network.passwords_found() == []


def restart_now_and_then(server: Any, run: Job, chance: random.Random) -> None:
    """Restart a server while a run goes on, wherever chance says, up to the last epochs."""
    epochs = EPOCHS * (len(PRESETS) + SEARCH_TRIALS)
    for moment in sorted(chance.sample(range(5, epochs * 9 // 10), RESTARTS)):
        run.wait_until(lambda moment=moment: len(AN_EPOCH.findall(run.said)) >= moment)
        time.sleep(chance.uniform(0, 0.3))
        assert run.process.poll() is None, run.said
        server.restart()
