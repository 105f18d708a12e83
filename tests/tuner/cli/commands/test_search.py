"""`run --trials`, `search`, `resume` and `worker` on the same study."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from search_spaces import load_model_definitions
from studies import RowState, SearchRequest, load_study, search_settings, study_status
from studies.sampling.pruning import Pruning
from tuner import HyperparameterTuner
from tuner.session.run_options import RunOptions

OUT = Path("training_output")
ONE_EPOCH = {"training": {"num_epochs": 1}}


def rows(folder=OUT):
    return {row.name: row for row in study_status(*load_study(folder)).rows}


def states(folder=OUT):
    return {name: row.state.value for name, row in rows(folder).items()}


@pytest.fixture
def project_dir(working_dir, tiny_dataset, tiny_models, make_watcher):
    """A working directory with an interrupted study and its input files, which the study names by relative paths.

    Preset `one` is interrupted after an epoch; preset `two` and a search trial are waiting.
    """
    shutil.copytree(tiny_dataset.parent, working_dir / "generated_data")
    shutil.copy(tiny_models, working_dir / "models.yaml")
    model = {"name": "tiny", "config_path": "models.yaml"}
    training = {"device": "cpu", "batch_size": 8, "num_epochs": 2, "use_tensorboard": False}
    experiments = {"one": {"model": model, "training": training}, "two": {"model": model, "training": training}}
    (working_dir / "config.yaml").write_text(yaml.safe_dump({"experiments": experiments}))
    (working_dir / "space.yaml").write_text("base: {num_epochs: 2}\nspace: {learning_rate: {low: 1e-3, high: 1e-2}}")
    with pytest.raises(KeyboardInterrupt):
        HyperparameterTuner(
            "config.yaml",
            options=RunOptions(
                space_file="space.yaml", search=SearchRequest(at_least=1), results_file="interrupted.json"
            ),
            display=make_watcher(after_epoch=1),
        ).run_experiments()
    assert states() == {"one": "interrupted", "two": "waiting", "search_0002": "waiting"}
    return working_dir


def test_run_trains_its_budget_once_and_search_adds_trials(cli, write_config, write_space, read_results):
    space = write_space(base={"num_epochs": 1})
    run = ["run", "--config", write_config({"one": ONE_EPOCH}), "--trials", "2", "--space", space]
    first = cli.ok(*run, "--sampler", "random", "--json")
    assert [entry["experiment_name"] for entry in json.loads(first.out)["all_results"]] == [
        "one",
        "search_0001",
        "search_0002",
    ]
    [results] = Path().glob("hyperparameter_tuning_results_*.json")
    assert read_results(results) == json.loads(first.out)
    again = cli.ok(*run, "--results-file", "r.json")
    assert "2 search trials are already finished" in again.err
    assert "nothing to train" in again.err
    more = cli.ok("search", "--trials", "1", "--results-file", "r.json")
    assert "[4/4] search_0003: " in more.err
    assert "search_0003" in more.out
    assert len(read_results(Path("r.json"))["all_results"]) == 4
    resumed = json.loads(cli("resume", "--json", "--results-file", "r.json").out)
    assert resumed | {"timestamp": ""} == read_results(Path("r.json")) | {"timestamp": ""}
    assert states() == dict.fromkeys(["one", "search_0001", "search_0002", "search_0003"], "completed")


def test_search_after_presets_can_use_another_space(cli, write_config, write_space):
    cli.ok("run", "--config", write_config({"one": ONE_EPOCH}))
    space = write_space(base={"num_epochs": 1}, learning_rate={"low": 0.002, "high": 0.01})
    searched = cli.ok("search", "--trials", "1", "--space", space)
    assert (
        "preset 'one': learning_rate 0.001 is outside the search space (0.002 to 0.01); the range is now"
        in searched.err
    )
    assert states() == {"one": "completed", "search_0001": "completed"}
    other = write_space(file_name="other.yaml", base={"num_epochs": 1})
    refused = cli.error("search", "--trials", "1", "--space", other)
    assert "its search space is fixed: learning_rate was {low: 0.001, high: 0.01}" in refused
    assert len(states()) == 2


def test_study_can_consist_of_only_a_search(cli, working_dir, write_config, write_space, tree):
    config = write_config({"one": {"early_stopping": {"patience": 3}}, "two": {"early_stopping": {"patience": 3}}})
    search = ["search", "--trials", "1", "--config", config]
    space = ["--space", write_space(base={"num_epochs": 1})]
    cli.ok(*search, *space, "--results-file", "r.json")
    assert states() == {"search_0000": "completed"}
    settings = search_settings(load_study(OUT)[0])
    assert settings is not None
    assert settings.start.early_stopping_patience == 3
    cli.ok("search", "--trials", "1")
    before = states(), tree(working_dir).keys()
    other = write_config({"one": {"early_stopping": {"patience": 5}}}, file_name="other.yaml")
    for argv, problem in (
        ([*search, "--space", write_space(file_name="other_space.yaml")], "base num_epochs was 1 and is 2 now"),
        ([*search[:-1], other], "its search has base early_stopping_patience 3, not 5"),
    ):
        assert problem in cli.error(*argv)
    assert (states(), tree(working_dir).keys()) == before
    assert len(before[0]) == 2


def test_search_without_presets_needs_no_configuration(cli, working_dir, tiny_dataset, tiny_models):
    shutil.copytree(tiny_dataset.parent, working_dir / "generated_data")
    (working_dir / "config").mkdir()
    shutil.copy(tiny_models, working_dir / "config" / "model_config.yaml")
    (working_dir / "space.yaml").write_text("base: {num_epochs: 1}\nspace: {model_name: [tiny, tiny_ctc]}")
    cli.ok("search", "--trials", "1", "--space", "space.yaml", "--device", "cpu", "--study", "mine")
    assert (states(), load_study(OUT)[0].study_name) == ({"search_0000": "completed"}, "mine")


def test_search_without_presets_can_use_a_server(cli, write_config, write_space, new_database):
    url = new_database()
    search = ["search", "--trials", "1", "--storage", url]
    config, space = write_config({"one": ONE_EPOCH}), write_space(base={"num_epochs": 1})
    cli.ok(*search, "--config", config, "--space", space)
    cli.ok(*search, "--output-dir", "of_another_machine")
    assert json.loads(cli("status", "--storage", url, "--json").out)["counts"]["completed"] == 2


def test_search_with_a_missing_dataset_is_refused_and_creates_nothing(cli, working_dir, tree):
    assert "nowhere/metadata.yaml" in cli.error("search", "--trials", "1", "--metadata", "nowhere/metadata.yaml")
    assert list(tree(working_dir)) == []


def test_search_first_trains_pending_trials(cli, project_dir):
    ran = cli.ok("search", "--trials", "1", "--results-file", "r.json")
    started = [line.split(" ")[1].rstrip(":") for line in ran.err.splitlines() if line.startswith("[")]
    assert started == ["one", "two", "search_0002", "search_0003"]
    assert "one (trial 0, resumed)" in ran.err
    assert set(states().values()) == {"completed"}


def test_resume_needs_only_the_output_folder(cli, project_dir, tmp_path, monkeypatch, read_results):
    for name in ("config.yaml", "models.yaml", "space.yaml"):
        (project_dir / name).unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status = cli("status", "--output-dir", project_dir / OUT)
    assert "1 interrupted" in status.out
    assert f"run `khmer-tuner resume --output-dir {project_dir / OUT}` to continue" in status.out
    assert "resumes at epoch 2" in cli.ok("resume", "--output-dir", project_dir / OUT).err
    assert set(states(project_dir / OUT).values()) == {"completed"}
    [results] = Path().glob("*")
    entries = read_results(results)["all_results"]
    assert [(entry["experiment_name"], entry["total_epochs"]) for entry in entries] == [
        ("one", 2),
        ("two", 2),
        ("search_0002", 2),
    ]
    assert list(load_model_definitions(project_dir / OUT / ".study" / "model_config.yaml")) == ["tiny", "tiny_ctc"]
    trained = yaml.safe_load((project_dir / OUT / "search_0002" / "configs" / "training_config.yaml").read_text())
    assert trained["output_dir"] == str(project_dir / OUT)


def test_moved_dataset_is_accepted_and_changed_dataset_is_refused(cli, project_dir, tree):
    shutil.move("generated_data", "moved")
    before = tree(project_dir)
    missing = cli.error("resume")
    assert "generated_data/metadata.yaml: the dataset of the study" in missing
    assert "run `khmer-tuner run` with a --config that contains the new path" in missing
    assert tree(project_dir).keys() == before.keys()
    content = yaml.safe_load(Path("config.yaml").read_text())
    content["experiments"] = {"two": content["experiments"]["two"] | {"data": {"metadata_path": "moved/metadata.yaml"}}}
    Path("moved.yaml").write_text(yaml.safe_dump(content))
    cli.ok("run", "--config", "moved.yaml")
    assert states() == {"one": "interrupted", "two": "completed", "search_0002": "waiting"}
    cli.ok("resume")
    assert set(states().values()) == {"completed"}

    images = sorted(Path("moved/train").glob("*.png"))
    images[0].write_bytes(images[1].read_bytes())
    before = tree(project_dir / OUT)
    for command in (["resume"], ["search", "--trials", "1"], ["worker"], ["run", "--config", "moved.yaml"]):
        assert "the dataset differs from the study's (fingerprint " in cli.error(*command)
    assert tree(project_dir / OUT).keys() == before.keys()
    assert set(states().values()) == {"completed"}


def test_changed_space_or_search_settings_are_refused_with_the_difference(cli, project_dir, tree):
    content = yaml.safe_load(Path("config.yaml").read_text())
    content["experiments"]["new"] = content["experiments"]["one"]  # refused together with the other problems
    Path("config.yaml").write_text(yaml.safe_dump(content))
    Path("space.yaml").write_text("base: {num_epochs: 3}\nspace: {learning_rate: {low: 1e-3, high: 0.1}}")
    before = states(), tree(project_dir / OUT).keys()
    space = cli.error("run", "--config", "config.yaml", "--trials", "2", "--space", "space.yaml")
    assert "base num_epochs was 2 and is 3 now" in space
    assert "learning_rate was {low: 0.001, high: 0.01} and is {low: 0.001, high: 0.1} now" in space
    for command in (["search", "--trials", "1"], ["run", "--config", "config.yaml"]):
        sampler = cli.error(*command, "--sampler", "random", "--prune-share", "0.25")
        assert "sampler tpe, not random" in sampler
        assert f"prune_share {Pruning.prune_share}, not 0.25" in sampler
    assert (states(), tree(project_dir / OUT).keys()) == before


def test_timeout_interrupts_the_running_trial(cli, write_config, make_watcher):
    endless = {"training": {"num_epochs": 100_000}, "early_stopping": {"patience": 100_000}}
    with pytest.raises(KeyboardInterrupt):
        HyperparameterTuner(str(write_config({"one": endless})), display=make_watcher(in_batch=1)).run_experiments()
    ran = cli.ok("search", "--trials", "1", "--timeout", "4", "--results-file", "r.json")
    assert "one, search_0001: still pending, because the time limit was reached" in ran.err
    assert "2 trials are pending; continue with: khmer-tuner resume" in ran.out
    one, waiting = rows().values()
    assert (one.state, waiting.state, one.worker_pid) == (RowState.INTERRUPTED, RowState.WAITING, None)
    assert one.epochs == len((OUT / "one" / "metrics.jsonl").read_text().splitlines()) > 0
    assert (OUT / "one" / "checkpoints" / "last.pt").exists()
    assert json.loads(Path("r.json").read_text())["all_results"] == []


# The signal can arrive in a garbage collector callback, or between opening a file and entering its `with`.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_says_how_to_resume_without_adding_trials(cli, project_dir):
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    stopped = cli("search", "--trials", "300")
    timer.join()
    assert stopped.code == 130
    assert stopped.err.endswith("stopped; run `khmer-tuner resume` to continue\n")
    assert set(states().values()) & {"interrupted", "waiting"}


def test_no_trial_starts_once_the_targets_are_met(cli, write_config, write_space):
    config = write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}, targets={"training_time_per_epoch": 1000})
    space = write_space(base={"num_epochs": 1})
    cli.ok("run", "--config", config, "--trials", "1", "--space", space, "--until-targets")
    for command in (["search", "--trials", "1"], ["resume"]):
        assert "one has met the targets" in cli.ok(*command, "--until-targets").err
    assert states() == {"one": "completed"} | dict.fromkeys(["two", "search_0002", "search_0003"], "waiting")
    cli.ok("resume")
    assert set(states().values()) == {"completed"}


def test_retry_failed_trains_failed_trials_again(cli, run_study, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run_study.folder, folder)
    argv = ["resume", "--output-dir", folder, "--results-file", "r.json"]
    untouched = cli(*argv)
    assert untouched.code == 1
    assert "broken has already failed; `khmer-tuner resume --retry-failed` retries it" in untouched.err
    assert "retrying failed trials: broken" in cli.ok(*argv, "--retry-failed").err
    entries = json.loads(Path("r.json").read_text())["all_results"]
    assert [(entry["experiment_name"], entry["status"]) for entry in entries] == [
        ("broken", "completed"),
        ("ខ្មែរ", "completed"),
    ]
    again = cli.ok(*argv, "--retry-failed")
    assert "retrying" not in again.err
    assert "nothing to train" in again.err


def test_search_whose_new_trials_all_fail_exits_with_1_and_can_be_retried(cli, write_config, write_space, monkeypatch):
    space, config = write_space(base={"num_epochs": 1}), write_config({"one": ONE_EPOCH})
    cli.ok("run", "--config", config, "--trials", "1", "--space", space)
    with monkeypatch.context() as patch:

        def fail(*arguments):
            raise RuntimeError("simulated error")

        patch.setattr("tuner.display.displays.ProgressDisplay.epoch_ended", fail)
        failed = cli("search", "--trials", "1")
        assert failed.code == 1
        assert cli("run", "--config", config, "--trials", "3").code == 1
    assert states()["search_0002"] == states()["search_0003"] == "failed"
    cli.ok("search", "--trials", "1")  # one of its new trials succeeded
    retried = cli.ok("resume", "--retry-failed", "--results-file", "r.json")
    assert "retrying failed trials: search_0002, search_0003" in retried.err
    assert set(states().values()) == {"completed"}
    names = [entry["experiment_name"] for entry in json.loads(Path("r.json").read_text())["all_results"]]
    assert sorted(names) == ["one", *(f"search_000{number}" for number in range(1, 5))]
    status = json.loads(cli("status", "--json").out)
    assert (status["pending"], status["search"]["budget"], status["search"]["ended"]) == (0, 4, 4)


def test_commands_exit_with_1_while_an_error_keeps_a_trial_pending(cli, write_config, make_watcher, fail):
    config = write_config({"blocked": ONE_EPOCH, "free": ONE_EPOCH})
    HyperparameterTuner(str(config), display=make_watcher(in_batch=2, action=fail)).run_experiments(["blocked"])
    (OUT / "blocked" / "checkpoints").write_text("a file in place of a folder")
    run = ["run", "--config", config]
    for command in (run, ["resume"], ["worker"]):
        failed = cli(*command)
        assert failed.code == 1
        assert failed.err.count("blocked stays pending: NotADirectoryError: ") == 1
        assert "unexpected" not in failed.err
        assert states() == {"blocked": "interrupted", "free": "completed"}
    cli.ok(*run, "--experiments", "free")
    (OUT / "blocked" / "checkpoints").unlink()
    cli.ok(*run)
    assert set(states().values()) == {"completed"}


def test_search_whose_working_directory_is_deleted_loses_no_trial(
    cli, working_dir, write_config, write_space, tiny_dataset, tmp_path
):
    deleted_dir, out = tmp_path / "deleted", tmp_path / "out"
    deleted_dir.mkdir()
    argv = ["search", "--trials", "6", "--config", write_config({"one": ONE_EPOCH}), "--output-dir", out]
    argv += ["--space", write_space(base={"num_epochs": 1}), "--parallelism", "6"]
    metadata = os.path.relpath(tiny_dataset, deleted_dir)
    command = [
        sys.executable,
        "-m",
        "tuner",
        *map(str, argv),
        "--metadata",
        metadata,
        "--results-file",
        working_dir / "r.json",
    ]
    with subprocess.Popen(command, cwd=deleted_dir, stderr=subprocess.PIPE, text=True) as search:
        lines = []
        for line in search.stderr:
            lines.append(line)
            if "search_0000: max epochs" in line:
                deleted_dir.rmdir()
    assert search.returncode == 1, "".join(lines)
    assert lines[-1].startswith("error: search_000")
    assert "failed with the same error, so no other trial is started: FileNotFoundError: " in lines[-1]
    assert set(states(out).values()) == {"completed", "interrupted", "waiting"}
    cli.ok("resume", "--output-dir", out)
    assert list(states(out).values()) == ["completed"] * 6


@pytest.mark.parametrize("files", [12, 13])
def test_too_few_open_files_fail_no_trial(files, cli, working_dir, write_config, write_space):
    search = ["search", "--trials", "3", "--config", str(write_config({"one": ONE_EPOCH}))]
    search += ["--space", str(write_space(base={"num_epochs": 1}))]
    command = f"ulimit -n {files}; exec {shlex.join([sys.executable, '-m', 'tuner', *search])}"
    stopped = subprocess.run(["sh", "-c", command], cwd=working_dir, capture_output=True, text=True)
    assert stopped.returncode in (1, 2), stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "failed" not in states().values()
    cli.ok("resume")
    assert list(states().values()) == ["completed"] * 3


def test_exit_code_of_later_commands_reports_a_failed_preset(cli, run_study, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run_study.folder, folder)
    outcome = cli("search", "--trials", "1", "--output-dir", folder, "--until-targets")
    assert outcome.code == 1
    assert "broken failed: " in outcome.out


def test_worker_trains_pending_trials_and_writes_no_results_file(cli, project_dir, tree):
    before = {path for path in tree(project_dir) if "/" not in path}
    worked = cli("worker")
    assert (worked.code, worked.out) == (0, "")
    assert "search_0002: " in worked.err
    assert set(states().values()) == {"completed"}
    assert {path for path in tree(project_dir) if "/" not in path} == before
    assert "nothing to train" in cli.ok("worker").err


def test_gp_sampler_disables_pruning(cli, write_config, write_space):
    run = ["run", "--config", write_config({"one": ONE_EPOCH}), "--trials", "1", "--sampler", "gp"]
    cli.ok(*run, "--space", write_space(base={"num_epochs": 1}))
    search = load_study(OUT)[0].user_attrs["search"]
    assert (search["sampler"], search["pruner"]) == ("gp", "none")


def test_worker_whose_trials_all_failed_exits_with_1(cli, write_config):
    wild = {"training": {"num_epochs": 3, "learning_rate": 10.0, "weight_decay": 10.0}, "optimizer": {"type": "adamw"}}
    cli.ok("run", "--config", write_config({"one": ONE_EPOCH}))
    cli.ok("enqueue", "--config", write_config({"wild": wild}))
    assert cli("worker").code == 1
    cli.ok("worker")
