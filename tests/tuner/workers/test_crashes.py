"""Trials whose processes are killed: same results bit for bit, or a failure."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from studies import MAX_CRASHES, RowState, SearchRequest, latest_records, load_study, study_status
from studies.trials.record import StartedAfter
from tuner import HyperparameterTuner
from tuner.session.run_options import RunOptions

OUT = Path("training_output")
WORKER = Path(__file__).parent / "mortal_worker.py"

pytestmark = pytest.mark.usefixtures("in_tmp")


def kill_in_epochs(config, name, *finished):
    """Start processes that are killed in the middle of an epoch, each after a number of finished epochs of a trial."""
    command = [sys.executable, str(WORKER), str(config), str(OUT), name, *map(str, finished)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # the number of threads of this process
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["9"] * len(finished), done.stderr


def record_of(name):
    return next(record for record in latest_records(load_study(OUT)[0]) if record.experiment_name == name)


def metrics_of(name, out=OUT):
    """Return the metrics of a trial's epochs, without the metrics that vary from run to run."""
    epochs = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
    varying = {"epoch_seconds", "memory_mb", "cpu_percent"}
    return [{key: value for key, value in epoch.items() if key not in varying} for epoch in epochs]


def test_result_is_unchanged_after_four_kills_in_one_epoch(write_config):
    config = write_config({"one": {"training": {"num_epochs": 3, "batch_size": 16}}})
    HyperparameterTuner(str(config), options=RunOptions(output_dir="reference")).run_experiments()
    kill_in_epochs(config, "one", *[1] * 4)
    (entry,) = HyperparameterTuner(str(config)).run_experiments()["all_results"]
    assert (entry["status"], entry["total_epochs"]) == ("completed", 3)
    assert metrics_of("one") == metrics_of("one", Path("reference"))
    record = record_of("one")
    assert record.outcome is not None
    assert record.outcome.micro_batch_size is None
    assert [attempt.after for attempt in record.attempts[1:]] == [StartedAfter.CRASH] * 4


@pytest.mark.slow
def test_trial_fails_after_ten_kills_in_one_epoch_and_the_others_are_trained(write_config, make_watcher, read_results):
    config = write_config({"deadly": {"training": {"num_epochs": 4}}, "other": {"training": {"num_epochs": 1}}})
    with pytest.raises(KeyboardInterrupt):
        HyperparameterTuner(str(config), display=make_watcher(after_epoch=2)).run_experiments()
    kill_in_epochs(config, "deadly", *[2] * MAX_CRASHES)
    (row, _) = study_status(*load_study(OUT)).rows
    assert (row.state, row.epochs, row.attempts) == (RowState.INTERRUPTED, 2, 1 + MAX_CRASHES)
    watcher = make_watcher()
    results = HyperparameterTuner(
        str(config), options=RunOptions(results_file="r.json"), display=watcher
    ).run_experiments()
    assert read_results(Path("r.json")) == results
    deadly, other = results["all_results"]
    assert deadly["status"] == "failed"
    assert deadly["error_message"] == (
        "10 processes in a row were killed in epoch 3; look for the cause in the system log"
    )
    assert (deadly["total_epochs"], other["status"]) == (2, "completed")
    assert deadly["best_val_char_accuracy"] == max(
        json.loads(line)["val_char_accuracy"] for line in (OUT / "deadly" / "metrics.jsonl").read_text().splitlines()
    )
    assert watcher.started == [("other", 1, False)]
    assert watcher.finished == ["deadly", "other"]
    record = record_of("deadly")
    assert record.outcome is not None
    assert record.outcome.why_ended == "crashed"
    after = [(attempt.after, attempt.epochs) for attempt in record.attempts]
    assert after == [(StartedAfter.WAITING, 0), (StartedAfter.STOP, 2), *[(StartedAfter.CRASH, 2)] * MAX_CRASHES]
    # As for every failed trial, only the best checkpoint is kept.
    assert [path.name for path in (OUT / "deadly" / "checkpoints").iterdir()] == ["best.pt"]


@pytest.mark.slow
def test_error_message_names_missing_metrics_of_another_machine(write_config):
    config = write_config({"deadly": {"training": {"num_epochs": 4}}})
    kill_in_epochs(config, "deadly", *[2] * MAX_CRASHES)
    shutil.rmtree(OUT / "deadly")
    (deadly,) = HyperparameterTuner(str(config)).run_experiments()["all_results"]
    assert deadly["error_message"] == (
        "10 processes in a row were killed before epoch 3 was finished; look for the cause in the system log; "
        "the metrics of epochs 1 to 2 are in another machine's output folder"
    )
    assert deadly["total_epochs"] == 2


@pytest.mark.slow
def test_trial_completes_although_ten_processes_were_killed_after_its_last_epoch(write_config):
    config = write_config({"one": {"training": {"num_epochs": 2}}})
    kill_in_epochs(config, "one", *[2] * MAX_CRASHES)
    assert record_of("one").consecutive_crashes == MAX_CRASHES - 1  # the next process records the last crash
    (entry,) = HyperparameterTuner(str(config)).run_experiments()["all_results"]
    assert (entry["status"], entry["total_epochs"]) == ("completed", 2)
    assert record_of("one").consecutive_crashes == MAX_CRASHES


@pytest.mark.slow
def test_kills_with_finished_epochs_between_them_are_not_counted_together(write_config):
    config = write_config({"one": {"training": {"num_epochs": 4}}})
    kill_in_epochs(config, "one", 0, 0, 1, 2)
    (entry,) = HyperparameterTuner(str(config)).run_experiments()["all_results"]
    assert (entry["status"], entry["total_epochs"]) == ("completed", 4)
    assert len(record_of("one").attempts) == 5


@pytest.mark.slow
def test_search_trial_fails_after_ten_kills_in_one_epoch(write_config, write_space):
    config = write_config({"one": {"training": {"num_epochs": 1}}})
    HyperparameterTuner(str(config), options=RunOptions(space_file=str(write_space()))).run_experiments()
    kill_in_epochs(config, "search_0001", *[0] * MAX_CRASHES)
    results = HyperparameterTuner(str(config), options=RunOptions(search=SearchRequest(at_least=2))).run_experiments()
    assert [entry["status"] for entry in results["all_results"]] == ["completed", "failed", "completed"]
    crashed = results["all_results"][1]
    assert (crashed["experiment_name"], crashed["total_epochs"]) == ("search_0001", 0)
    assert "in epoch 1" in crashed["error_message"]
    assert crashed["final_train_loss"] is None
