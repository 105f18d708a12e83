"""Trials whose processes die: trained to the same bits, in smaller passes if memory ran out, given up in the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studies import MAX_CRASHES, RowState, SearchRequest, TrialRecord, latest_records, load_study, study_status
from studies.trials.record import StartedAfter
from tuner import HyperparameterTuner
from tuner.__main__ import main
from tuner.session.run_options import RunOptions

WriteConfig = Callable[..., Path]
WriteSpace = Callable[..., Path]
MakeWatcher = Callable[..., Any]
OUT = Path("training_output")
GROUPS = Path("/proc/self/cgroup").read_text() if Path("/proc/self/cgroup").exists() else ""
WORKER = Path(__file__).parent / "mortal_worker.py"

pytestmark = pytest.mark.usefixtures("in_tmp")


def die(config: Path, name: str, *finished: int) -> None:
    """Let one process after the other be killed in the middle of an epoch of a trial, after so many finished ones."""
    command = [sys.executable, str(WORKER), str(config), str(OUT), name, *map(str, finished)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as many as this process has
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert ended.stdout.split() == ["9"] * len(finished), ended.stderr


def record_of(name: str) -> TrialRecord:
    return next(record for record in latest_records(load_study(OUT)[0]) if record.experiment_name == name)


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group with little memory, for the processes that `die` starts."""
    groups = {controllers: group for _, controllers, group in (line.split(":", 2) for line in GROUPS.splitlines())}
    root, limit = Path("/sys/fs/cgroup"), "memory.max"
    own = groups.get("", "/")
    if "memory" in groups:
        root, limit, own = root / "memory", "memory.limit_in_bytes", groups["memory"]
    folder = Path(f"{root}{own}") / f"khmer_test_{os.getpid()}"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(2**30))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMORY_GROUP", str(folder))
        yield folder
    folder.rmdir()


def figures(name: str, out: Path = OUT) -> list[dict[str, Any]]:
    """Return the epochs of a trial without what no two runs have in common."""
    epochs = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
    varying = {"epoch_seconds", "memory_mb", "cpu_percent"}
    return [{key: value for key, value in epoch.items() if key not in varying} for epoch in epochs]


def test_many_kills_in_one_epoch_change_nothing(write_config: WriteConfig) -> None:
    config = write_config({"one": {"training": {"num_epochs": 3, "batch_size": 16}}})
    calm = RunOptions(output_dir="calm")
    HyperparameterTuner(str(config), options=calm).run_experiments()
    die(config, "one", *[1] * 4)
    (entry,) = HyperparameterTuner(str(config)).run_experiments()["all_results"]
    assert (entry["status"], entry["total_epochs"]) == ("completed", 3)
    assert figures("one") == figures("one", Path("calm"))
    record = record_of("one")
    assert record.outcome is not None
    assert record.outcome.micro_batch_size is None
    assert [attempt.after for attempt in record.attempts[1:]] == [StartedAfter.CRASH] * 4


@pytest.mark.slow
def test_what_killed_ten_processes_in_one_epoch_is_given_up_and_the_others_are_trained(
    write_config: WriteConfig, make_watcher: MakeWatcher, read_results: Any
) -> None:
    config = write_config({"deadly": {"training": {"num_epochs": 4}}, "other": {"training": {"num_epochs": 1}}})
    with pytest.raises(KeyboardInterrupt):
        HyperparameterTuner(str(config), display=make_watcher(after_epoch=2)).run_experiments()
    die(config, "deadly", *[2] * MAX_CRASHES)
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
        "10 processes in a row were killed in epoch 3; find out what kills them"
    )
    assert (deadly["total_epochs"], other["status"]) == (2, "completed")
    assert deadly["best_val_char_accuracy"] == max(
        json.loads(line)["val_char_accuracy"] for line in (OUT / "deadly" / "metrics.jsonl").read_text().splitlines()
    )
    assert watcher.started == [("other", 1, False)]
    assert watcher.ended == ["deadly", "other"]
    record = record_of("deadly")
    assert record.outcome is not None
    assert record.outcome.why_ended == "crashed"
    after = [(attempt.after, attempt.epochs) for attempt in record.attempts]
    assert after == [(StartedAfter.WAITING, 0), (StartedAfter.STOP, 2), *[(StartedAfter.CRASH, 2)] * MAX_CRASHES]
    # As of every failure, the best model stays and what a continuation needs does not.
    assert [path.name for path in (OUT / "deadly" / "checkpoints").iterdir()] == ["best.pt"]


@pytest.mark.slow
def test_where_its_figures_are_in_another_machine_s_folder_a_crash_says_so(write_config: WriteConfig) -> None:
    config = write_config({"deadly": {"training": {"num_epochs": 4}}})
    die(config, "deadly", *[2] * MAX_CRASHES)
    shutil.rmtree(OUT / "deadly")
    (deadly,) = HyperparameterTuner(str(config)).run_experiments()["all_results"]
    assert deadly["error_message"] == (
        "10 processes in a row were killed before epoch 3 was finished; find out what kills them; "
        "the metrics of 2 epochs are in another machine's folder"
    )
    assert deadly["total_epochs"] == 2


@pytest.mark.slow
def test_a_trial_with_no_epoch_left_is_finished_however_often_its_processes_died(write_config: WriteConfig) -> None:
    config = write_config({"one": {"training": {"num_epochs": 2}}})
    die(config, "one", *[2] * MAX_CRASHES)
    assert record_of("one").consecutive_crashes == MAX_CRASHES - 1  # the next process notes the last of them
    (entry,) = HyperparameterTuner(str(config)).run_experiments()["all_results"]
    assert (entry["status"], entry["total_epochs"]) == ("completed", 2)
    assert record_of("one").consecutive_crashes == MAX_CRASHES


@pytest.mark.usefixtures("memory_group")
def test_a_trial_that_ran_out_of_memory_twice_in_one_epoch_is_trained_in_smaller_passes(
    write_config: WriteConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config({"large": {"training": {"num_epochs": 3, "batch_size": 16}}})
    die(config, "large", 1, 1)
    # The first of them is known to the second; this process, of another group, knows the machine's counter.
    assert record_of("large").attempts[-1].after is StartedAfter.MEMORY_CRASH
    (entry,) = HyperparameterTuner(str(config)).run_experiments()["all_results"]
    assert (entry["status"], entry["total_epochs"]) == ("completed", 3)
    record = record_of("large")
    assert record.outcome is not None
    assert record.outcome.micro_batch_size == 8
    log = (OUT / "large" / "logs" / "training.log").read_text()
    assert "epoch 2: an earlier process ran out of memory in it; using micro-batches of at most 8 images" in log
    assert main(["show", "large"]) == 0
    shown = capsys.readouterr().out
    assert "micro-batch: 8, since memory ran out for whole batches" in shown
    assert shown.count("the previous one ran out of memory") == 2


@pytest.mark.usefixtures("memory_group")
def test_a_trial_that_ran_out_of_memory_three_times_in_one_epoch_is_given_up(write_config: WriteConfig) -> None:
    config = write_config({"deadly": {"training": {"num_epochs": 2}}})
    die(config, "deadly", 0, 0, 0)
    (deadly,) = HyperparameterTuner(str(config)).run_experiments()["all_results"]
    assert deadly["error_message"] == (
        "3 processes in a row ran out of memory in epoch 1; use a smaller batch_size or model"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("memory_group")
def test_one_that_ran_out_of_memory_and_many_that_were_killed_change_nothing(write_config: WriteConfig) -> None:
    config = write_config({"one": {"training": {"num_epochs": 2, "batch_size": 16}}})
    die(config, "one", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MEMORY_GROUP")
        die(config, "one", 0, 0)
    HyperparameterTuner(str(config)).run_experiments()
    record = record_of("one")
    causes = [StartedAfter.WAITING, StartedAfter.MEMORY_CRASH, StartedAfter.CRASH, StartedAfter.CRASH]
    assert [attempt.after for attempt in record.attempts] == causes
    assert record.outcome is not None
    assert record.outcome.micro_batch_size is None


@pytest.mark.slow
def test_deaths_with_progress_between_them_are_forgiven(write_config: WriteConfig) -> None:
    config = write_config({"one": {"training": {"num_epochs": 4}}})
    die(config, "one", 0, 0, 1, 2)
    (entry,) = HyperparameterTuner(str(config)).run_experiments()["all_results"]
    assert (entry["status"], entry["total_epochs"]) == ("completed", 4)
    assert len(record_of("one").attempts) == 5


@pytest.mark.slow
def test_a_search_trial_is_given_up_in_the_same_way(write_config: WriteConfig, write_space: WriteSpace) -> None:
    config = write_config({"one": {"training": {"num_epochs": 1}}})
    HyperparameterTuner(str(config), options=RunOptions(space_file=str(write_space()))).run_experiments()
    die(config, "search_0001", *[0] * MAX_CRASHES)
    results = HyperparameterTuner(str(config), options=RunOptions(search=SearchRequest(at_least=2))).run_experiments()
    assert [entry["status"] for entry in results["all_results"]] == ["completed", "failed", "completed"]
    crashed = results["all_results"][1]
    assert (crashed["experiment_name"], crashed["total_epochs"]) == ("search_0001", 0)
    assert "in epoch 1" in crashed["error_message"]
    assert crashed["final_train_loss"] is None
