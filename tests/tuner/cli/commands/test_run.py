from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from studies import DEFAULT_STUDY_NAME
from tuner.__main__ import main


def test_a_failed_experiment_gives_exit_code_1_and_the_next_one_runs(run_study):
    results = json.loads(run_study.results.read_text())
    assert run_study.code == 1
    assert [entry["status"] for entry in results["all_results"]] == ["failed", "completed"]
    assert results["best_result"]["experiment_name"] == "ខ្មែរ"


def test_repeating_the_command_says_what_is_finished_and_trains_nothing(cli, run_study):
    again = cli(*run_study.run_again)
    assert again.code == 1
    assert "ខ្មែរ is finished already" in again.err
    assert "broken has failed already" in again.err
    assert "nothing is left to train" in again.err
    before = json.loads(run_study.results.read_text())["all_results"]
    [results] = Path().glob("hyperparameter_tuning_results_*.json")
    assert json.loads(results.read_text())["all_results"] == before


def test_only_chosen_experiments_count(cli, run_study):
    assert cli(*run_study.run_again, "--experiments", "ខ្មែរ").code == 0
    assert cli(*run_study.run_again, "--experiments", "broken").code == 1


def test_the_summary_names_experiments_targets_and_places(cli, run_study):
    summary = cli(*run_study.run_again, "--results-file", "r.json").out
    assert "all epochs" in summary
    assert "MISSED" in summary
    assert "broken failed: " in summary
    assert str(run_study.folder / "broken" / "logs" / "training.log") in summary
    assert (run_study.folder / "broken" / "logs" / "training.log").exists()
    assert f"{run_study.folder}/study.db" in summary
    assert "r.json" in summary
    assert "\x1b" not in summary


def test_json_prints_the_results_and_nothing_else(cli, run_study):
    printed = json.loads(cli(*run_study.run_again, "--json", "--results-file", "r.json").out)
    assert printed == json.loads(Path("r.json").read_text())


def test_a_line_for_each_epoch_where_there_is_no_terminal(cli, write_config):
    lines = cli("run", "--config", write_config({"one": {}}), "--output-dir", "out").err.splitlines()
    assert "[1/1] one (trial 0): tiny, batch 8, lr 0.001, steplr, up to 2 epochs" in lines
    assert [line.split()[0] for line in lines if line.startswith("  ")] == ["1/2", "2/2"]


def test_the_seed_reaches_the_training(cli, write_config):
    assert cli("run", "--config", write_config({"one": {}}), "--output-dir", "out", "--seed", "7").code == 0
    assert "seed: 7" in Path("out/one/configs/training_config.yaml").read_text()


def test_a_dry_run_shows_the_plan_and_creates_nothing(cli, here, tree, run_study, write_config):
    config = write_config({"one": {}, "two": {}}, targets={"sequence_accuracy": 0.5})
    before = tree(config.parent), tree(run_study.folder)
    fresh = cli("run", "--config", config, "--dry-run")
    known = cli(*run_study.run_again, "--dry-run")
    changed = cli(*run_study.run_again, "--dry-run", "--seed", "5")
    assert (fresh.code, known.code, changed.code) == (0, 0, 0)
    assert [line.split()[-1] for line in fresh.out.splitlines() if line.startswith(("one", "two"))] == ["new", "new"]
    assert "seq >= 0.5" in fresh.out
    assert "completed" in known.out
    assert "failed" in known.out
    assert changed.out.count("CHANGED") == 2
    assert (tree(config.parent), tree(run_study.folder)) == before


def test_a_dry_run_says_how_much_is_really_to_be_trained_and_how(cli, run_study, write_space):
    space = write_space(learning_rate={"low": 0.002, "high": 0.01})
    search = ["--trials", "2", "--sampler", "random", "--workers", "2", "--space", space, "--dry-run"]
    told = cli(*run_study.run_again, *search)
    assert told.code == 0
    assert "search:  2 trials in the study, sampler random, pruner quantile" in told.out
    note = "preset 'ខ្មែរ': learning_rate 0.001 is outside the search space (0.002 to 0.01); widened to 0.001 to 0.01"
    assert f"note: {note}" in told.out
    assert "train:   2 trials, workers 2" in told.out  # both presets have ended
    plan = json.loads(cli(*run_study.run_again, *search, "--json").out)
    assert (plan["trials_to_train"], plan["workers"], plan["search"]["sampler"]) == (2, 2, "random")
    assert plan["states"] == {"broken": "failed", "ខ្មែរ": "completed"}
    assert plan["experiments"]["ខ្មែរ"]["learning_rate"] == 0.001
    assert note in plan["search"]["notes"]


def test_the_default_study_is_that_of_the_api(cli, run_study):
    assert json.loads(cli("status", "--output-dir", run_study.folder, "--json").out)["study"] == DEFAULT_STUDY_NAME


def test_the_storage_variable_is_used_and_named_when_it_is_wrong(cli, write_config, monkeypatch):
    config = write_config({"one": {}})
    monkeypatch.setenv("KHMER_TUNER_STORAGE", f"sqlite:///{os.getcwd()}/elsewhere.db")
    assert cli("run", "--config", config, "--output-dir", "out").code == 0
    assert Path("elsewhere.db").exists()
    assert not Path("out/study.db").exists()
    monkeypatch.setenv("KHMER_TUNER_STORAGE", "sqlite://")
    wrong = cli("status", "--output-dir", "out")
    assert wrong.code == 2
    assert "KHMER_TUNER_STORAGE" in wrong.err


@pytest.mark.parametrize("command", [["-m", "tuner", "run"], ["scripts/phase3_hyperparameter_tuning.py"]])
def test_other_ways_to_the_same_command(command, run_study, tmp_path):
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, *command, *run_study.run_again[1:], "--dry-run"], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0
    assert "nothing was created" in done.stdout


def test_help_has_runnable_examples(capsys):
    assert main(["run", "--help"]) == 0
    assert "khmer-tuner run --experiments conservative_small baseline_optimized" in capsys.readouterr().out
