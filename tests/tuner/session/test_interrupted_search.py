"""A resumed search gives the same results as a search that was never interrupted."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from studies import SearchRequest, load_study, study_status
from tuner import HyperparameterTuner
from tuner.__main__ import main
from tuner.session.run_options import RunOptions
from tuner.signals import StopRequested, stop_on_signals

# Measurements of the process, which differ from run to run.
TIMES = ("training_time", "training_time_s", "epoch_seconds", "epoch_seconds_median", "memory_mb", "cpu_percent")
# The size of a checkpoint depends on the length of the folder's path, which the checkpoint contains.
TIMES += ("images_per_s_batch_1", "images_per_s_batch_64", "checkpoint_bytes")
BY_LOSS = {"early_stopping": {"monitor": "val_loss", "mode": "min", "patience": 2}}


def without_times(data):
    """Return the data without the values that differ from run to run."""
    if isinstance(data, dict):
        return {
            name: without_times(value) for name, value in data.items() if name not in (*TIMES, "attempts", "timestamp")
        }
    return [without_times(item) for item in data] if isinstance(data, list) else data


def study_data(folder, results):
    """Return all data of a study and its results file."""
    trials = load_study(folder)[0].get_trials()
    curves = {
        path.parent.name: [without_times(json.loads(line)) for line in path.read_text().splitlines()]
        for path in folder.glob("*/metrics.jsonl")
    }
    return [
        [(trial.state, trial.params, trial.values, trial.intermediate_values) for trial in trials],
        [without_times(trial.user_attrs) for trial in trials],
        [trial.distributions for trial in trials],
        curves,
        without_times(json.loads(results.read_text())),
    ]


def run_search(config, space, folder, display=None):
    # Six search trials, because the sampler learns from earlier results only for the last one.
    HyperparameterTuner(
        str(config),
        options=RunOptions(
            output_dir=folder,
            space_file=str(space),
            search=SearchRequest(at_least=6, prune_grace=1),
            results_file=f"{folder}.json",
        ),
        display=display,
    ).run_experiments()


def interrupt_by_signal(train):
    """Interrupt training with Ctrl-C."""
    with pytest.raises(StopRequested), stop_on_signals():
        train(lambda: os.kill(os.getpid(), signal.SIGINT))


def interrupt_by_stop_command(train):
    """Interrupt training with `khmer-tuner stop`."""
    train(lambda: main(["stop", "--output-dir", "interrupted"]))


@pytest.mark.usefixtures("in_tmp")
def test_resumed_search_gives_the_same_trials_and_results(write_config, write_space, make_watcher):
    config = write_config({"one": {"training": {"num_epochs": 3}} | BY_LOSS})
    space = write_space(base={"num_epochs": 3})
    run_search(config, space, "uninterrupted")
    uninterrupted = study_data(Path("uninterrupted"), Path("uninterrupted.json"))
    # Ensures that the comparison covers pruned and completed trials.
    ends = [trial["outcome"]["why_ended"] for trial in uninterrupted[1]]
    assert {"pruned", "max_epochs"} <= set(ends)
    longest = sorted(range(1, 7), key=lambda number: len(uninterrupted[0][number][3]))[-2:]
    in_preset, early, late = {"in_batch": 8}, *({"of_trial": number, "after_epoch": 1} for number in sorted(longest))

    def train_until(point, action):
        run_search(config, space, "interrupted", make_watcher(action=action, **point))

    for interrupt, point in (
        (interrupt_by_stop_command, in_preset),
        (interrupt_by_signal, early),
        (interrupt_by_stop_command, late),
    ):
        interrupt(partial(train_until, point))
        assert study_status(*load_study(Path("interrupted"))).counts["interrupted"] == 1
    assert study_data(Path("interrupted"), Path("interrupted.json"))[:3] != uninterrupted[:3]
    assert main(["resume", "--output-dir", "interrupted", "--results-file", "interrupted.json"]) == 0
    for actual, expected in zip(study_data(Path("interrupted"), Path("interrupted.json")), uninterrupted, strict=True):
        assert actual == expected
