"""`stop`: stops the workers of a study, whose trials can be resumed."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studies import load_study, study_status
from tuner import ExperimentFailedError, HyperparameterTuner
from tuner.cli.commands import stop
from tuner.cli.errors import stop_message
from tuner.cli.existing_study import exit_code
from tuner.display.events import Display
from tuner.session.run_options import RunOptions, StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.study_setup import ExistingStudy

OUT = Path("training_output")
TIMES = ("epoch_seconds", "memory_mb", "cpu_percent")
# Long enough that `stop` arrives during training, also on a busy machine.
EPOCHS = 60
LONG = {"training": {"num_epochs": EPOCHS, "batch_size": 4}, "early_stopping": {"patience": 100}}
ONE_EPOCH = {"training": {"num_epochs": 1}}


def rows(folder=OUT):
    return {row.name: row for row in study_status(*load_study(folder)).rows}


def curve(name, folder):
    """Return the metrics of a trial's epochs, without the metrics that differ between runs."""
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


@pytest.fixture
def start_command(working_dir):
    """Start a command in another process, wait for two epochs of its trials, and kill the process after the test."""
    processes = []

    def start(*argv, trials=1):
        command = [sys.executable, "-m", "tuner", *map(str, argv)]
        one_thread = os.environ | {
            "OMP_NUM_THREADS": "1"
        }  # as in this process, because the number of threads changes results
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=one_thread)
        processes.append(process)
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            trials -= bool(re.search(r" 2/\d+  char", line))
            if trials == 0:
                return process
        return pytest.fail("".join(lines))

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_earlier_stop_request_does_not_stop_a_run_in_a_new_folder(cli, write_config, tmp_path):
    storage = f"sqlite:///{tmp_path}/other.db"
    first = write_config({"one": ONE_EPOCH}, file_name="first.yaml")
    cli.ok("run", "--config", first, "--storage", storage, "--results-file", "r.json")
    cli.ok("stop")
    shutil.rmtree(OUT)
    study = write_config({"two": ONE_EPOCH}, file_name="second.yaml")
    done = cli("run", "--config", study, "--storage", storage, "--results-file", "r.json", "--study", "khmer-ocr")
    assert "a stop was requested" not in done.out + done.err


def test_wait_ignores_trials_that_start_later(monkeypatch):
    def row(number, attempts):
        return SimpleNamespace(number=number, attempts=attempts)

    polls = [[row(0, 1)], [row(0, 1)], [row(0, 1), row(1, 1)], [row(0, 2), row(1, 1)]]
    monkeypatch.setattr(stop, "_running", lambda study, folder: polls.pop(0))
    monkeypatch.setattr(stop, "_POLL_S", 0.0)
    stop._wait(Any, Any, [row(0, 1)])
    assert polls == []


@pytest.mark.parametrize(
    ("stop_requested", "expected"),
    [(False, "stopped"), (True, "stopped waiting; the trials still stop after their current epoch")],
)
def test_ctrl_c_during_stop_says_whether_stop_was_requested(stop_requested, expected):
    assert stop_message(argparse.Namespace(command="stop", stop_requested=stop_requested)) == expected


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stopped_run_interrupts_its_trials_and_resume_reproduces_their_curves(
    workers, start_command, cli, write_config, read_results
):
    config = write_config({"ខ្មែរ": LONG, "two": LONG if workers == 2 else ONE_EPOCH})
    argv = ["run", "--config", config, "--results-file", "stopped.json", "--workers", str(workers)]
    running = start_command(*argv, trials=workers)
    stopped = cli.ok("stop", "--wait")
    names = ["ខ្មែរ", "two"][:workers]
    for number, name in enumerate(names):
        pattern = rf"^{name} \(trial {number}\): \d+ epochs? finished, stops after the current epoch; process \d+$"
        assert re.search(pattern, stopped.out, re.MULTILINE)
    assert stopped.out.endswith("stopped; run `khmer-tuner resume` to continue\n")
    assert {row.worker_pid for row in rows().values()} == {None}
    out, err = running.communicate()
    assert running.returncode == 0
    for number, name in enumerate(names):
        assert f"{name} (trial {number}): interrupted\n" in err
    assert "two, ខ្មែរ: still pending, because a stop was requested" in err
    assert "killed or crashed" not in err
    assert "2 trials are pending; continue with: khmer-tuner resume" in out
    assert read_results(Path("stopped.json"))["all_results"] == []
    stopped_rows = rows()
    assert [row.state.value for row in stopped_rows.values()] == [
        "interrupted",
        "interrupted" if workers == 2 else "waiting",
    ]
    for name in names:
        assert stopped_rows[name].epochs == len(curve(name, OUT)) < EPOCHS
    assert max(row.epochs for row in stopped_rows.values()) >= 2

    cli.ok("resume", "--results-file", "resumed.json")
    cli.ok("run", "--config", config, "--output-dir", "uninterrupted")
    for name in ("ខ្មែរ", "two"):
        assert rows()[name].epochs == len(curve(name, OUT)) == rows(Path("uninterrupted"))[name].epochs
        assert curve(name, OUT) == curve(name, Path("uninterrupted"))


def test_stop_without_workers_does_not_stop_later_commands(cli, run_study, copy_of_the_study):
    assert cli("stop", "--wait", "--output-dir", copy_of_the_study).out == "stop requested; no trial is running\n"
    requested = cli("stop", "--wait", "--json", "--output-dir", copy_of_the_study)
    assert (requested.code, json.loads(requested.out)) == (0, {"asked": [], "stopped": True})
    assert "a stop was requested" not in cli.ok("resume", "--retry-failed", "--output-dir", copy_of_the_study).err
    assert {row.state.value for row in study_status(*load_study(copy_of_the_study)).current} == {"completed"}


def test_python_api_obeys_a_stop_request(cli, write_config, make_watcher):
    config = write_config({"one": LONG, "two": LONG})
    watcher = make_watcher(after_epoch=1, action=lambda: cli("stop"))
    tuner = HyperparameterTuner(str(config), options=RunOptions(results_file="r.json"), display=watcher)
    results = tuner.run_experiments()
    assert tuner.stopped
    assert results["all_results"] == []
    assert watcher.notes == ["one, two: still pending, because a stop was requested"]
    assert watcher.interrupted == [0]
    again = make_watcher(after_epoch=3, action=lambda: cli("stop"))
    tuner = HyperparameterTuner(str(config), options=RunOptions(results_file="r.json"), display=again)
    with pytest.raises(
        ExperimentFailedError, match="'one': interrupted by a stop request; repeat the call to continue"
    ):
        tuner.run_single_experiment("one", tuner.config["experiments"]["one"])
    assert again.epochs == [(0, 1), (0, 2), (0, 3)]


def test_experiment_skipped_because_of_met_targets_is_reported(write_config):
    config = write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}, targets={"training_time_per_epoch": 1000})
    options = RunOptions(results_file="r.json", until_targets=True)
    tuner = HyperparameterTuner(str(config), options=options)
    tuner.run_single_experiment("one", tuner.config["experiments"]["one"])
    with pytest.raises(ExperimentFailedError, match="'two': not trained, because another trial has met the targets"):
        tuner.run_single_experiment("two", tuner.config["experiments"]["two"])


def test_exit_code_is_0_without_finished_trials_if_stop_was_requested(cli, write_config, make_watcher):
    with pytest.raises(KeyboardInterrupt):
        HyperparameterTuner(str(write_config({"one": LONG})), display=make_watcher(in_batch=1)).run_experiments()
    session = Session.reopen(ExistingStudy.load(OUT), Display())
    assert exit_code(session, TrialFilter(), StopConditions()) == 1
    cli.ok("stop")
    assert exit_code(session, TrialFilter(), StopConditions()) == 0


def test_stop_imports_no_torch_and_changes_only_the_study(run_study, copy_of_the_study, tree):
    before = tree(copy_of_the_study).keys()
    code = "import sys; from tuner.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    argv = ["stop", "--output-dir", str(copy_of_the_study)]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(copy_of_the_study).keys() == before


def test_folder_without_a_study_is_refused(cli):
    assert "there is no such folder" in cli.error("stop", "--output-dir", "nowhere")
    assert list(Path().iterdir()) == []
