import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies import DEFAULT_STUDY_NAME, load_study
from tuner.__main__ import main


def test_failed_experiment_gives_exit_code_1_and_the_next_one_is_trained(run_study):
    results = json.loads(run_study.results.read_text())
    assert run_study.code == 1
    assert [entry["status"] for entry in results["all_results"]] == ["failed", "completed"]
    assert results["best_result"]["experiment_name"] == "ខ្មែរ"


def test_repeated_run_names_finished_trials_and_trains_nothing(cli, run_study):
    again = cli(*run_study.run_again)
    assert again.code == 1
    assert "ខ្មែរ is already finished" in again.err
    assert "broken has already failed" in again.err
    assert "nothing to train" in again.err
    folder = run_study.folder
    assert f"{folder} is already complete; `khmer-tuner export --output-dir {folder} --results-file" in again.out
    assert list(Path().iterdir()) == []


def test_results_file_is_rewritten_only_if_results_are_missing(cli, run_study):
    run = [*run_study.run_again, "--results-file", "r.json"]
    assert cli(*run).code == 1
    written = Path("r.json").read_bytes()
    assert json.loads(written)["all_results"] == json.loads(run_study.results.read_text())["all_results"]
    os.utime("r.json", (1, 1))
    assert "is already complete" in cli(*run).out
    assert os.stat("r.json").st_mtime == 1
    # As after a killed command: the file has only the results of an earlier command.
    Path("r.json").write_text(json.dumps(json.loads(written) | {"all_results": []}))
    assert "results      r.json\n" in cli(*run).out
    assert json.loads(Path("r.json").read_text())["all_results"] == json.loads(written)["all_results"]


def test_exit_code_depends_only_on_the_selected_experiments(cli, run_study):
    cli.ok(*run_study.run_again, "--experiments", "ខ្មែរ")
    assert cli(*run_study.run_again, "--experiments", "broken").code == 1


def test_summary_names_experiments_targets_and_paths(cli, run_study):
    summary = cli(*run_study.run_again, "--results-file", "r.json").out
    assert "max epochs" in summary
    assert "MISSED" in summary
    assert "broken failed: " in summary
    assert str(run_study.folder / "broken" / "logs" / "training.log") in summary
    assert (run_study.folder / "broken" / "logs" / "training.log").exists()
    assert f"{run_study.folder}/study.db" in summary
    assert "r.json" in summary
    assert "\x1b" not in summary


def test_json_prints_only_the_results(cli, run_study):
    Path("r.json").touch()
    printed = json.loads(cli(*run_study.run_again, "--json", "--results-file", "r.json").out)
    assert printed == json.loads(Path("r.json").read_text())


def test_without_a_terminal_each_epoch_has_a_line(cli, write_config):
    lines = cli("run", "--config", write_config({"one": {}}), "--output-dir", "out").err.splitlines()
    assert "[1/1] one (trial 0): tiny, batch 8, lr 0.001, steplr, up to 2 epochs" in lines
    assert [line.split()[0] for line in lines if line.startswith("  ")] == ["1/2", "2/2"]


def test_seed_option_sets_the_training_seed(cli, write_config):
    cli.ok("run", "--config", write_config({"one": {}}), "--output-dir", "out", "--seed", "7")
    assert "seed: 7" in Path("out/one/configs/training_config.yaml").read_text()


def test_dry_run_shows_the_plan_and_creates_nothing(cli, working_dir, tree, run_study, write_config):
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


def test_dry_run_shows_pending_trials_and_search_settings(cli, run_study, write_space):
    space = write_space(learning_rate={"low": 0.002, "high": 0.01})
    search = ["--trials", "2", "--sampler", "random", "--workers", "2", "--space", space, "--dry-run"]
    shown = cli.ok(*run_study.run_again, *search)
    assert "search:  2 search trials in total, sampler random, pruner quantile, parallelism 4" in shown.out
    note = (
        "preset 'ខ្មែរ': learning_rate 0.001 is outside the search space (0.002 to 0.01); the range is now 0.001 to 0.01"
    )
    assert f"note: {note}" in shown.out
    assert "train:   2 trials (number of workers: 2)" in shown.out  # both presets are finished
    plan = json.loads(cli(*run_study.run_again, *search, "--json").out)
    assert (plan["trials_to_train"], plan["workers"], plan["search"]["sampler"]) == (2, 2, "random")
    assert plan["states"] == {"broken": "failed", "ខ្មែរ": "completed"}
    assert plan["experiments"]["ខ្មែរ"]["learning_rate"] == 0.001
    assert note in plan["search"]["notes"]


def test_default_study_name_is_that_of_the_python_api(cli, run_study):
    assert json.loads(cli("status", "--output-dir", run_study.folder, "--json").out)["study"] == DEFAULT_STUDY_NAME


def test_storage_variable_is_used_and_named_in_errors(cli, write_config, monkeypatch):
    config = write_config({"one": {}})
    monkeypatch.setenv("KHMER_TUNER_STORAGE", f"sqlite:///{os.getcwd()}/other.db")
    cli.ok("run", "--config", config, "--output-dir", "out")
    assert Path("other.db").exists()
    assert not Path("out/study.db").exists()
    monkeypatch.setenv("KHMER_TUNER_STORAGE", "sqlite://")
    assert "KHMER_TUNER_STORAGE" in cli.error("status", "--output-dir", "out")


@pytest.mark.parametrize("command", [["-m", "tuner", "run"], ["scripts/phase3_hyperparameter_tuning.py"]])
def test_module_and_script_run_the_same_command(command, run_study, tmp_path):
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, *command, *run_study.run_again[1:], "--dry-run"], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0
    assert "nothing was created" in done.stdout


def test_help_has_runnable_examples(capsys):
    assert main(["run", "--help"]) == 0
    assert "khmer-tuner run --experiments conservative_small baseline_optimized" in capsys.readouterr().out


@pytest.mark.parametrize("storage", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_second_run_of_the_same_experiments_waits_for_the_first(
    storage, working_dir, write_config, cli, request, monkeypatch, tmp_path
):
    if storage == "postgresql":
        monkeypatch.setenv("KHMER_TUNER_STORAGE", request.getfixturevalue("new_database")())
    long = {"training": {"num_epochs": 40, "batch_size": 4}, "early_stopping": {"patience": 100}}
    argv = ["run", "--config", str(write_config({"one": long})), "--results-file"]
    log = (tmp_path / "log.txt").open("w+")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tuner", *argv, "first.json"]
    with subprocess.Popen(command, env=environment, stderr=log, stdout=log) as first:
        try:
            metrics = Path("training_output/one/metrics.jsonl")
            while not metrics.exists() and first.poll() is None:
                time.sleep(0.05)
            second = cli(*argv, "second.json")
            assert first.wait(60) == 0
        finally:
            first.kill()
            log.close()
    assert second.code == 0, second.err
    note = f"waiting for the trials of {socket.gethostname()}:{first.pid}; see `khmer-tuner status`"
    assert "still pending" not in second.err
    assert second.err.count(note) == 1
    entries = [json.loads(Path(name).read_text())["all_results"] for name in ("first.json", "second.json")]
    assert entries[0] == entries[1]
    assert [(entry["status"], entry["total_epochs"]) for entry in entries[1]] == [("completed", 40)]
    assert len(metrics.read_text().splitlines()) == 40


@pytest.mark.slow
def test_parallel_retries_train_a_failed_experiment_once(copy_of_the_study, working_dir):
    command = [sys.executable, "-m", "tuner", "resume", "--retry-failed", "--output-dir", str(copy_of_the_study)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, "--results-file", f"{number}.json"], env=environment, stderr=subprocess.PIPE)
        for number in range(3)
    ]
    ends = [(process.communicate()[1].decode(), process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0, 0], ends
    for number in range(3):
        entries = json.loads(Path(f"{number}.json").read_text())["all_results"]
        assert [entry["status"] for entry in entries] == ["completed", "completed"]
    assert len(load_study(copy_of_the_study)[0].trials) == 3  # `broken` twice


ONE_EPOCH = {"training": {"num_epochs": 1}}


def test_parallelism_and_threads_are_those_of_the_study(cli, write_config, write_space, tree, monkeypatch):
    monkeypatch.setattr("tuner.session.run_options.usable_cores", lambda: 8)
    config, space = write_config({"one": ONE_EPOCH}), write_space(base={"num_epochs": 1})
    argv = ["run", "--config", config, "--space", space, "--trials", "1"]
    cli.ok(*argv, "--parallelism", "3", "--threads", "1")
    assert json.loads(cli("status", "--json").out)["search"]["parallelism"] == 3
    before = tree(Path("training_output"))
    threads = "study 'khmer-ocr': its workers train with --threads 1, not 2; leave out the option, or start a new study"
    parallelism = "study 'khmer-ocr': its search has parallelism 3, not 2; "
    for options, problem in (
        ([*argv, "--threads", "2"], threads),
        (["resume", "--threads", "2"], threads),
        (["worker", "--threads", "2"], threads),
        (["search", "--trials", "1", "--threads", "2"], threads),
        ([*argv, "--parallelism", "2"], parallelism),
        (["search", "--trials", "1", "--parallelism", "2"], parallelism),
        (["enqueue", "--trials", "1", "--parallelism", "2"], parallelism),
    ):
        refused = cli(*options)
        assert (refused.code, problem in refused.err) == (2, True), (options, refused.err)
    assert tree(Path("training_output")) == before
    cli.ok("search", "--trials", "1")


def test_search_trial_that_waits_for_an_excluded_preset_is_a_failure_with_its_remedy(
    cli, write_config, write_space, monkeypatch
):
    monkeypatch.setattr("tuner.workers.waiting._SECONDS_UNTIL_BLOCKED", 0.0)
    config, space = write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), write_space(base={"num_epochs": 1})
    argv = ["run", "--config", config, "--space", space]
    cli.ok(*argv, "--experiments", "two")
    cli.ok("enqueue", "--config", config, "--experiments", "one")
    blocked = cli(*argv, "--experiments", "two", "--trials", "1")
    assert blocked.code == 1
    reason = "search_0002 waits until one has finished, which no running worker will train; run `khmer-tuner resume`"
    assert f"search_0002: still pending, because {reason} to train it" in blocked.err
    cli.ok("resume")
    assert json.loads(cli("status", "--json").out)["counts"]["completed"] == 3
