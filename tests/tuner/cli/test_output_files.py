"""Output files of commands never overwrite other files, neither at the start nor at the end of a command."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from search_spaces import ConfigurationError
from studies import load_study
from tuner import HyperparameterTuner
from tuner.cli.commands import COMMAND_GROUPS
from tuner.cli.parser import parse
from tuner.session.run_options import RunOptions

COMMANDS = {
    "run": ["run", "--config", "{config}", "--results-file"],
    "search": ["search", "--trials", "1", "--results-file"],
    "resume": ["resume", "--results-file"],
    "export": ["export", "--results-file"],
    "export csv": ["export", "--format", "csv", "--results-file"],
    "export study": ["export", "--format", "study", "--results-file"],
    "best": ["best", "--out"],
    "report": ["report", "--out"],
}
EXISTING_FILES = (
    "{config}",
    "notes.yaml",
    "results.json",
    "link.yaml",
    "hard_link.db",
    "dangling",
    "data/metadata.yaml",
    "data/test/test_000000.png",
    "data/test/new.json",
    "out/study.db",
    "out/study.db-journal",
    "out/.study/owner.json",
    "out/.study/new.json",
    "out/ខ្មែរ/checkpoints/best.pt",
    "out/ខ្មែរ/metrics.jsonl",
    "out/ខ្មែរ/new.json",
    "into_a_trial/new.json",
    "into_images/new.json",
)
ONE_EPOCH = {"one": {"training": {"num_epochs": 1}}}


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory, run_study, tiny_dataset):
    """A folder with a study `out`, a dataset `data`, files of the user, and links to them."""
    folder = tmp_path_factory.mktemp("user_folder")
    shutil.copytree(run_study.folder, folder / "out")
    shutil.copytree(tiny_dataset.parent, folder / "data")
    (folder / "notes.yaml").write_text("mine: 1\n")
    (folder / "results.json").write_text('{"mine": 1}\n')
    (folder / "link.yaml").symlink_to("notes.yaml")
    (folder / "hard_link.db").hardlink_to(folder / "out" / "study.db")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "into_a_trial").symlink_to(folder / "out" / "ខ្មែរ")
    (folder / "into_images").symlink_to(folder / "data" / "val")
    return folder


def content(folder):
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("existing_file", EXISTING_FILES)
@pytest.mark.parametrize("command", [*COMMANDS, "export-model"])
def test_no_command_overwrites_another_file(command, existing_file, cli, user_folder, run_study, monkeypatch):
    monkeypatch.chdir(user_folder)
    before, config = content(user_folder), run_study.config.read_bytes()
    words = COMMANDS.get(command, [command, "--out"])
    arguments = [word.format(config=run_study.config) for word in (*words, existing_file)]
    assert arguments[-1] in cli.error(*arguments, "--output-dir", "out")
    assert content(user_folder) == before
    assert run_study.config.read_bytes() == config


@pytest.mark.parametrize("command", COMMANDS)
def test_file_of_the_same_kind_or_an_empty_file_is_replaced(command, cli, copy_of_the_study, run_study, tmp_path):
    arguments = [word.format(config=run_study.config) for word in COMMANDS[command]]
    # An empty file as `mktemp` creates it, also in the folder of study.db.
    for path in (Path("mine.json"), copy_of_the_study / "kept.json"):
        path.touch()
        sizes = []
        for _ in range(2):
            assert cli(*arguments, path, "--output-dir", copy_of_the_study).code in (0, 1)
            sizes.append(path.stat().st_size)
        assert min(sizes) > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_file_of_another_kind_is_not_replaced(command, cli, run_study):
    """A command that writes one kind of file refuses all other kinds."""
    kinds = {
        "results": ["export", "--results-file", "results"],
        "csv": ["export", "--format", "csv", "--results-file", "csv"],
        "study": ["export", "--format", "study", "--results-file", "study"],
        "best": ["best", "--out", "best"],
        "report": ["report", "--out", "report"],
    }
    others = {
        "export csv": "csv",
        "export study": "study",
        "best": "best",
        "report": "report",
    }
    own = others.get(command, "results")
    for arguments in kinds.values():
        cli.ok(*arguments, "--output-dir", run_study.folder)
    arguments = [word.format(config=run_study.config) for word in COMMANDS[command]]
    for name in kinds.keys() - {own}:
        before = Path(name).read_bytes()
        cli.error(*arguments, name, "--output-dir", run_study.folder)
        assert Path(name).read_bytes() == before


def test_results_are_kept_if_another_file_appears_during_training(
    write_config, make_watcher, read_results, working_dir, caplog
):
    config = str(write_config(ONE_EPOCH))
    watcher = make_watcher(after_epoch=1, action=lambda: Path("r.json").write_text("mine"))
    results = HyperparameterTuner(config, options=RunOptions(results_file="r.json"), display=watcher).run_experiments()
    assert Path("r.json").read_text() == "mine"
    [written] = Path().glob("hyperparameter_tuning_results_*.json")
    assert read_results(written) == results
    assert f"the results are in {written}" in caplog.text


@pytest.mark.parametrize("command", ["export", "export csv", "best", "report"])
def test_file_that_appears_while_a_command_reads_is_not_overwritten(command, run_study, working_dir):
    arguments = [*COMMANDS[command], "late", "--output-dir", str(run_study.folder)]
    chosen, options = parse(arguments, COMMAND_GROUPS)
    prepared = chosen.prepare(options)
    Path("late").write_text("mine")
    with pytest.raises(ConfigurationError, match="so it is not overwritten"):
        chosen.run(options, prepared)
    assert Path("late").read_text() == "mine"


NEW_WORK = {
    "run": ["run", "--config", "{config}"],
    "run with a search": ["run", "--config", "{config}", "--experiments", "ខ្មែរ", "--trials", "1"],
    "search": ["search", "--config", "{config}", "--trials", "1"],
}


@pytest.mark.parametrize("history", ["no study", "a deleted study"])
@pytest.mark.parametrize(("command", "name"), [("run", "broken"), *((word, "search_0007") for word in [*NEW_WORK][1:])])
def test_new_study_does_not_change_existing_folders(command, name, history, cli, run_study, copy_of_the_study):
    out = copy_of_the_study
    if history == "no study":
        shutil.rmtree(out)
    else:
        shutil.rmtree(out / ".study")
        (out / "study.db").unlink()
    (out / name / "checkpoints").mkdir(parents=True, exist_ok=True)
    (out / name / "checkpoints" / "mine.pt").write_text("mine")
    before = content(out)
    refused = cli.error(*(word.format(config=run_study.config) for word in NEW_WORK[command]), "--output-dir", out)
    assert str(out / name) in refused
    assert "no trial of this study wrote the files there (perhaps another program or a deleted study" in refused
    assert "move the folder away, or choose another --output-dir" in refused
    assert content(out) == before
    assert os.listdir() == []


@pytest.mark.parametrize(
    "command",
    [["run", "--trials", "1", "--config", "{config}"], ["search", "--trials", "1"], ["enqueue", "--trials", "1"]],
    ids=lambda arguments: arguments[0],
)
def test_existing_study_does_not_change_other_folders(command, cli, run_study, copy_of_the_study):
    arguments = [word.format(config=run_study.config) for word in command]
    (copy_of_the_study / "search_0002").mkdir()
    (copy_of_the_study / "search_0002" / "metrics.jsonl").write_text("mine")
    before = load_study(copy_of_the_study)[0].get_trials()
    refused = cli(*arguments, "--output-dir", copy_of_the_study)
    assert (refused.code, str(copy_of_the_study / "search_0002") in refused.err) == (2, True)
    assert load_study(copy_of_the_study)[0].get_trials() == before
    (copy_of_the_study / "search_0002" / "metrics.jsonl").unlink()  # an empty folder is fine
    cli.ok("enqueue", "--trials", "1", "--output-dir", copy_of_the_study)


def test_comparison_file_overwrites_no_other_file(cli, copy_of_the_study, run_study):
    study_option = ["--output-dir", copy_of_the_study]
    config = yaml.safe_load(run_study.config.read_text(encoding="utf-8"))
    Path("c.yaml").write_text(json.dumps({"experiments": {"other": config["experiments"]["broken"]}}))
    cli.ok("run", "--config", "c.yaml", "--set", "training.batch_size=16", *study_option)
    path = Path(f"{copy_of_the_study}_confirm") / "confirmation.json"
    path.parent.mkdir()
    path.write_text("mine")
    confirm = ["confirm", "--top", "2", "--seeds", "1", *study_option]
    assert f"{path}: this file exists and is not a comparison written by `khmer-tuner confirm`" in cli.error(*confirm)
    assert (path.read_text(), os.listdir(path.parent)) == ("mine", ["confirmation.json"])
    path.unlink()
    assert [cli(*confirm).code, cli(*confirm).code] == [0, 0]  # the second call replaces the file of the first


def test_commands_without_a_results_file_need_no_writable_folder(cli, copy_of_the_study, monkeypatch, working_dir):
    # Root can write to every folder, so the check itself is replaced.
    monkeypatch.setattr("tuner.session.output_paths.os.access", lambda path, mode: Path(path) != working_dir)
    for arguments in (["worker"], ["enqueue", "--trials", "1"], ["stop"], ["status"], ["show", "0"]):
        cli.ok(*arguments, "--output-dir", copy_of_the_study)
    refused = cli("export", "--format", "csv", "--output-dir", copy_of_the_study)
    problem = f"the folder {working_dir} is not writable; choose another folder"
    assert refused.err == f"error: results file trials_{{timestamp}}.csv: {problem}\n"


def test_report_and_best_print_only_their_output_to_standard_output(cli, run_study):
    page = cli("report", "--output-dir", run_study.folder, "--out", "-")
    assert (page.code, page.err) == (0, "")
    assert page.out.startswith("<!DOCTYPE html>")
    assert page.out.rstrip().endswith("</html>")
    best = cli("best", "--output-dir", run_study.folder, "--out", "-")
    assert (best.code, best.err) == (0, "")
    assert best.out == cli("best", "--output-dir", run_study.folder).out
    assert json.loads(cli("best", "--output-dir", run_study.folder, "--out", "-", "--json").out)["preset_file"] is None
    assert os.listdir() == []
