"""`scripts/soak.py` for one cycle: a study with injected faults and polling keeps all invariants."""

import importlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from studies import WhyEnded, latest_records, load_study
from studies.trials.record import StartedAfter

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "scripts" / "soak.py"
MEMORY = Path("/dev/shm")
SEARCH_TRIALS = 3


@pytest.mark.slow
def test_study_with_injected_faults_keeps_all_invariants():
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        done = subprocess.run(
            [sys.executable, str(HARNESS), "--minutes", "0", "--trials", "6", "--seed", "3", "--folder", folder],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nbroken invariants: 0\n" in done.stdout
    assert "s: no problems" in done.stdout
    found = re.search(r"retrained trials with equal results: (\d+) of (\d+)\n", done.stdout)
    assert found is not None
    assert found[1] == found[2] != "0"
    for poll in ("study page", "dashboard", "export", "refused"):
        assert re.search(rf"^polls: .*\d+ x {poll}\b", done.stdout, re.MULTILINE)


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(HARNESS.parent))
    return importlib.import_module


@pytest.fixture(scope="module")
def complete_study(tmp_path_factory):
    """A work folder with a complete study."""
    folder = tmp_path_factory.mktemp("soak")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HARNESS.parent))
        small = importlib.import_module("harness.fixture_study").FixtureStudy(folder, SEARCH_TRIALS)
        small.write_inputs()
    (folder / "study").mkdir()
    subprocess.run(
        [sys.executable, "-m", "tuner", *small.run],
        cwd=folder / "study",
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def study(complete_study, tmp_path):
    """A copy of the complete study."""
    shutil.copytree(complete_study, tmp_path / "work")
    return tmp_path / "work" / "study"


@pytest.fixture
def examine(study, module):
    small = module("harness.fixture_study").FixtureStudy(study.parent, SEARCH_TRIALS)
    return lambda: module("soak.invariants").examine(small, study)


def in_database(statement):
    def change(study):
        with closing(sqlite3.connect(study / "out" / "study.db")) as database, database:
            assert database.execute(statement).rowcount == 1

    return change


def change_metrics(change):
    def do(study):
        path = study / "out" / "plain" / "metrics.jsonl"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return do


def change_results(study):
    path = study / "results.json"
    path.write_text(path.read_text().replace('"total_epochs": 5', '"total_epochs": 4', 1))


def add_leftover_checkpoint(study):
    (study / "out" / "plain" / "checkpoints" / "last.pt").touch()


def empty_index(study):
    path = study / "out" / "study.db"
    with closing(sqlite3.connect(path)) as database:
        (size,) = database.execute("PRAGMA page_size").fetchone()
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_trials_study_id'").fetchone()
    leaf_without_cells = bytes((10, 0, 0, 0, 0, *size.to_bytes(2, "big"), 0))
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(leaf_without_cells)


def test_study_without_faults_keeps_all_invariants(examine):
    found = examine()
    assert found.problems == []
    assert found.not_reproducible == []
    assert found.trials == SEARCH_TRIALS + 2
    assert found.epochs > found.trials


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (change_metrics(lambda lines: [*lines, lines[-1]]), "plain has wrong epochs in its metrics: "),
        (change_metrics(lambda lines: [lines[0], *lines[2:]]), "plain has wrong epochs in its metrics: found [1, 3"),
        (change_metrics(lambda lines: [*lines[:-1], lines[-1][:20]]), "plain has wrong epochs in its metrics: "),
        (change_metrics(lambda lines: lines[:-1]), "epochs in its metrics but 5 in the study"),
        (
            in_database("DELETE FROM trials WHERE number = 4"),
            "wrong trial numbers: found [0, 1, 2, 3], expected 0 to 4",
        ),
        (in_database("UPDATE trials SET number = 5 WHERE number = 4"), "trial 4: damaged (LookupError: it is missing)"),
        (in_database("UPDATE trials SET state = 'RUNNING' WHERE number = 1"), "unfinished trials: 1 RUNNING"),
        (
            in_database(
                "UPDATE trial_user_attributes SET value_json = '\"plain\"' "
                "WHERE trial_id = 1 AND key = 'experiment_name'"
            ),
            "a second trial of 'plain'",
        ),
        (
            in_database(
                "UPDATE trial_user_attributes SET value_json = json_set(value_json, '$.why_ended', 'crashed') "
                "WHERE trial_id = 2 AND key = 'outcome'"
            ),
            "plain ended as crashed: found 0 consecutive crashes, 0 of them",
        ),
        (
            in_database(
                "UPDATE trial_user_attributes SET value_json = json_set(value_json, '$.why_ended', 'failed') "
                "WHERE trial_id = 2 AND key = 'outcome'"
            ),
            "plain failed",
        ),
        (
            in_database("UPDATE trial_intermediate_values SET intermediate_value = 1 WHERE trial_id = 1 AND step = 2"),
            "with_curves reported wrong values: found ",
        ),
        (
            in_database("UPDATE trial_values SET value = value + 1 WHERE trial_id = 1"),
            "with_curves has a wrong value: found ",
        ),
        (change_results, "results.json differs from the study"),
        (add_leftover_checkpoint, "leftover files: out/plain/checkpoints/last.pt"),
        (empty_index, "the database is damaged"),
    ],
)
def test_broken_invariant_is_a_problem(change, problem, study, examine):
    change(study)
    assert any(problem in found for found in examine().problems)


@pytest.mark.parametrize(("crashes", "is_broken"), [(2, True), (3, False)])
def test_crashed_trial_breaks_no_invariant_after_three_out_of_memory_crashes(crashes, is_broken, study, module):
    records = latest_records(load_study(study / "out")[0])
    record = next(record for record in records if record.outcome is not None)
    assert record.outcome is not None
    attempt = replace(record.attempts[-1], after=StartedAfter.MEMORY_CRASH)
    record = replace(record, attempts=(attempt,) * crashes, outcome=replace(record.outcome, why_ended=WhyEnded.CRASHED))
    assert bool(list(module("soak.invariants")._end_problems(record))) == is_broken


def test_results_file_that_differs_from_export_is_a_problem(study, module):
    results_problems = module("soak.invariants").results_problems
    assert list(results_problems(study)) == []
    change_results(study)
    assert list(results_problems(study)) == ["results.json differs from a new export"]


def change_loss(lines):
    metrics = json.loads(lines[1])
    metrics["train_loss"] += 1e-14
    return [lines[0], json.dumps(metrics) + "\n", *lines[2:]]


@pytest.fixture
def retrain(study, module, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(study)  # the function changes to this folder
    yield lambda: module("soak.retraining").retrain(study, 0, 1)
    torch.set_num_threads(threads)


def test_retraining_reproduces_metrics_and_reports_changed_metrics(study, retrain):
    retrained = retrain()
    assert len(retrained) == SEARCH_TRIALS + 2
    assert not any(retrained.values())
    change_metrics(change_loss)(study)
    assert [problem[:29] for problem in retrain().values() if problem] == ["plain differs when retrained:"]


def test_trial_with_reduced_micro_batches_is_not_retrained(study, retrain, examine):
    in_database(
        "UPDATE trial_user_attributes SET value_json = json_set(value_json, '$.micro_batch_size', 4) "
        "WHERE trial_id = 2 AND key = 'outcome'"
    )(study)
    assert examine().not_reproducible == ["plain"]
    assert len(retrain()) == SEARCH_TRIALS + 1


def entry(name, **changes):
    hyperparameters = {
        "model_name": "small",
        "batch_size": 8,
        "learning_rate": 0.001,
        "weight_decay": 0.0,
        "loss_type": "ctc",
        "scheduler_type": "cosine",
        "optimizer_type": "adam",
    }
    known = {
        "experiment_name": name,
        "status": "completed",
        "training_time": 1.5,
        "best_val_char_accuracy": 0.5,
        "best_val_seq_accuracy": 0.25,
        "final_train_loss": 0.75,
        "total_epochs": 3,
        "error_message": "",
        "hyperparameters": hyperparameters,
    }
    return known | changes


def export(*entries, completed=None):
    known = {
        "timestamp": "20260102_030405",
        "experiments_completed": len(entries) if completed is None else completed,
        "best_result": None,
        "all_results": list(entries),
    }
    return json.dumps(known)


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (export(entry("a"), entry("b")), None),
        (export(entry("a"), entry("b"), entry("c")), None),
        (export(entry("a")), "b has disappeared"),
        (export(entry("a"), entry("b", training_time=1.25)), "b changed"),
        (export(entry("a"), entry("b"), completed=1), "experiments_completed fell from 2 to 1"),
        (export(entry("a"), entry("b"), entry("b")), "appears twice"),
        (export(entry("a"), entry("b", final_train_loss=float("nan"))), "invalid JSON"),
        (export(entry("a"), entry("b"))[:-1], "invalid JSON"),
        (
            export(entry("a"), entry("b", status="pruned")),
            "differs from the documented schema at $.all_results[1].status",
        ),
        (export(entry("a"), entry("b", seed=1)), "differs from the documented schema at $.all_results[1]"),
    ],
)
def test_export_that_contradicts_the_previous_export_is_a_problem(second, problem, module):
    exports = module("soak.consistency").Exports()
    assert list(exports.problems(export(entry("a"), entry("b")))) == []
    problems = list(exports.problems(second))
    assert any(problem in found for found in problems) if problem else problems == []


def trial(number, state, *values):
    return {"number": number, "state": state} | ({"values": list(values)} if values else {})


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([trial(0, "Complete", 0.5), trial(1, "Running")], []),
        ([trial(0, "Complete", 0.5), trial(1, "Pruned", 0.25), trial(2, "Waiting")], []),
        ([trial(0, "Complete", 0.5)], ["the number of trials fell from 2 to 1"]),
        ([trial(0, "Complete", 0.25), trial(1, "Running")], ["trial 0 changed from "]),
        ([trial(0, "Pruned", 0.5), trial(1, "Running")], ["trial 0 changed from "]),
        ([trial(0, "Running"), trial(1, "Running")], ["trial 0 has disappeared"]),
    ],
)
def test_dashboard_response_that_contradicts_the_previous_response_is_a_problem(second, expected, module):
    details = module("soak.consistency").Details()
    assert list(details.problems({"trials": [trial(0, "Complete", 0.5), trial(1, "Running")]})) == []
    assert list(details.problems({})) == []  # a failed request is recorded separately
    problems = list(details.problems({"trials": second}))
    assert [problem[: len(text)] for problem, text in zip(problems, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("seconds", "eta", "problems"),
    [
        (1.5, 2.0, []),
        (None, None, []),
        (-1.5, 2.0, ["a has a negative duration: -1.5 s"]),
        (1.5, -2.0, ["the remaining time is negative: -2.0 s"]),
    ],
)
def test_negative_times_are_problems(seconds, eta, problems, module):
    status = {"trials": [{"name": "a", "seconds": seconds}], "eta_seconds": eta}
    assert list(module("soak.consistency").status_problems(json.dumps(status))) == problems


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["run", "--config", "../no.yaml"], ["command 1 (no faults) exited with 2"]),
        (["--help"], ["command 1 (no faults) exited with 0 although the study is incomplete"]),
        (["status", "--output-dir", "out"], []),
    ],
)
def test_wrong_exit_of_a_command_is_a_problem(command, expected, study, module):
    training_module, cycle, survey = (module(name) for name in ("soak.training", "soak.cycle", "harness.survey"))
    small = module("harness.fixture_study").FixtureStudy(study.parent, SEARCH_TRIALS)
    training = training_module.Training(study, command, 1)
    training.wait()
    one = cycle.Cycle(small, "study", random.Random(1))
    one._study.commands = 1
    injector = module("soak.fault_injection").FaultInjector(study, training, small.trials, random.Random(1))
    finished = small.trials if not expected else 0
    state = survey.Survey(small.trials, finished)
    problems = list(one._command_problems(training, injector, survey.Survey(), state))
    assert [problem[: len(text)] for problem, text in zip(problems, expected, strict=True)] == expected


def test_processes_in_a_folder_are_found_and_killed(tmp_path, module):
    processes = module("soak.training")
    assert processes.processes_in(tmp_path) == []
    code = "import time; print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as sleeper:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        assert [process.pid for process in processes.processes_in(tmp_path)] == [sleeper.pid]
        assert processes.orphans_in(tmp_path) == []  # not a worker
        processes.kill_processes_in(tmp_path)
        assert sleeper.wait() < 0
    assert processes.processes_in(tmp_path) == []
