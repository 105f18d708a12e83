"""Bad input: exit 2, every problem at once, no traceback, nothing created."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

GOOD = ["run", "--config", "{config}", "--output-dir", "out"]
CASES = {
    "no command": ([], ["no command given"]),
    "misspelt command": (["rnu"], ["did you mean 'run'?"]),
    "misspelt option": ([*GOOD, "--experimnts", "one"], ["'--experimnts'; did you mean '--experiments'?"]),
    "an option of another command": (["worker", "--workers", "2"], ["no option '--workers'"]),
    "an option without its value": (["run", "--config"], ["--config", "expected one argument"]),
    "abbreviated option": ([*GOOD, "--dev", "cpu"], ["did you mean '--device'?"]),
    "word too many": (["validate", "{config}", "more"], ["'more'"]),
    "missing configuration": (["run", "--config", "nope.yaml"], ["nope.yaml", "not found"]),
    "empty configuration name": (["run", "--config", ""], ["--config", "empty"]),
    "a folder as configuration": (["run", "--config", "."], ["folder"]),
    "broken YAML": (["run", "--config", "{broken}"], ["broken.yaml:3:1", "not valid YAML"]),
    "empty file": (["validate", "{empty}"], ["empty.yaml"]),
    "wrong configuration": (["validate", "{wrong}"], ["batchsize", "'batch_size'", "no_such_model", "2 problems"]),
    "unknown experiments": ([*GOOD, "--experiments", "onne", "../../x"], ["did you mean 'one'?", "'../../x'"]),
    "unknown device": ([*GOOD, "--device", "gpu"], ["--device", "'gpu'"]),
    "bad seed": ([*GOOD, "--seed", "-1"], ["--seed", "'-1'"]),
    "seed in words": ([*GOOD, "--seed", "one"], ["--seed", "whole number"]),
    "fewer trials than none": ([*GOOD, "--trials", "-1"], ["--trials", "'-1'", "from 0 to 1,000,000"]),
    "trials in words": ([*GOOD, "--trials", "x"], ["--trials", "'x'", "whole number"]),
    "unknown sampler": ([*GOOD, "--trials", "2", "--sampler", "foo"], ["--sampler", "'foo'", "tpe, random, gp"]),
    "misspelt pruner": ([*GOOD, "--pruner", "quantle"], ["--pruner", "did you mean 'quantile'?"]),
    "a Gaussian process with pruning": (
        [*GOOD, "--trials", "2", "--sampler", "gp", "--pruner", "quantile"],
        ["--pruner", "'quantile'", "learns nothing from pruned trials", "--sampler tpe"],
    ),
    "a share above 1": ([*GOOD, "--prune-share", "2"], ["--prune-share", "'2'", "above 0 and below 1"]),
    "a share in words": ([*GOOD, "--prune-share", "half"], ["--prune-share", "'half'"]),
    "a share that nothing compares": (
        [*GOOD, "--pruner", "hyperband", "--prune-share", "0.3"],
        ["--prune-share", "hyperband compares no shares"],
    ),
    "no grace": ([*GOOD, "--prune-grace", "0"], ["--prune-grace", "'0'", "from 1 to"]),
    "a grace from nothing": ([*GOOD, "--pruner", "none", "--prune-grace", "3"], ["--prune-grace", "nothing is pruned"]),
    "no workers": ([*GOOD, "--workers", "0"], ["--workers", "'0'", "from 1 to 256"]),
    "missing space": ([*GOOD, "--space", "missing.yaml"], ["missing.yaml", "not found"]),
    "empty space name": ([*GOOD, "--space", ""], ["--space", "empty"]),
    "a space with a field unknown": ([*GOOD, "--space", "{odd_space}"], ["odd_space.yaml:2", "'learning_rate'"]),
    "a space with a model unknown": ([*GOOD, "--space", "{no_model}"], ["no_model.yaml:1", "'huge'", "defined model"]),
    "no number of trials": (["search"], ["--trials", "required"]),
    "a search for nothing": (["search", "--trials", "0"], ["--trials", "'0'", "no such folder", "2 problems"]),
    "no time": (["search", "--trials", "1", "--timeout", "0"], ["--timeout", "'0'", "seconds above 0"]),
    "endless time": (["search", "--trials", "1", "--timeout", "inf"], ["--timeout", "'inf'"]),
    "time in words": (["search", "--trials", "1", "--timeout", "1h"], ["--timeout", "'1h'"]),
    "no study to search on in": (["search", "--trials", "1", "--output-dir", "nope"], ["nope", "no such folder"]),
    "no study to go on with": (["resume", "--output-dir", "nope"], ["nope", "begin one with `khmer-tuner run`"]),
    "no study to work on": (["worker", "--output-dir", "nope"], ["nope", "begin one with `khmer-tuner run`"]),
    "all that is wrong with a search": (
        "search --trials x --sampler gp --pruner hyperband --workers 0 --timeout -1 --device tpu "
        "--results-file no/r.json".split(),
        ["--trials", "--pruner", "--workers", "--timeout", "no/r.json", "--device", "no such folder", "7 problems"],
    ),
    "storage that keeps nothing": ([*GOOD, "--storage", "sqlite://"], ["keeps nothing"]),
    "storage in memory": ([*GOOD, "--storage", "sqlite:///:memory:"], ["keeps nothing"]),
    "mistyped storage": ([*GOOD, "--storage", "sqlite:/x.db"], ["three slashes"]),
    "storage without scheme": ([*GOOD, "--storage", "x.db"], ["no scheme"]),
    "bad study name": ([*GOOD, "--study", "../x"], ["study name", "'../x'"]),
    "a file as output folder": (["run", "--config", "{config}", "--output-dir", "{config}"], ["is a file"]),
    "results in no folder": ([*GOOD, "--results-file", "no/r.json"], ["no/r.json"]),
    "results in place of a folder": ([*GOOD, "--results-file", "."], ["this is a folder"]),
    "missing dataset": (["run", "--config", "{no_dataset}"], ["nowhere/metadata.yaml", "khmer-tuner data"]),
    "no study to show": (["status", "--output-dir", "nope"], ["no such folder"]),
    "no study to export": (["export"], ["no such folder"]),
    "an export to no folder": (["export", "--results-file", "no/r.json"], ["no/r.json", "there is no folder"]),
    "unknown format": (["export", "--format", "xml"], ["--format", "json, csv"]),
    "no model to read with": (["predict", "x.png"], ["no such folder"]),
    "a checkpoint that is none": (["predict", "x.png", "--checkpoint", "{config}"], ["checkpoint"]),
    "nothing to evaluate on": (["evaluate"], ["--metadata"]),
    "missing metadata": (
        ["evaluate", "--metadata", "m.yaml", "--output-dir", "nope"],
        ["m.yaml", "nope", "2 problems"],
    ),
    "senseless dataset": (["data", "--samples", "5", "--fonts", "comic"], ["--samples", "--fonts", "2 problems"]),
    "no fonts": (["data", "--fonts-dir", "nope"], ["'nope'"]),
}


@pytest.fixture
def files(write_config, tmp_path: Path) -> dict[str, str]:
    texts = {
        "broken": "experiments:\n  a: {\n",
        "empty": "",
        "odd_space": "space:\n  learning_rat: {low: 1e-4, high: 1e-2}\n",
        "no_model": "space: {model_name: [tiny, huge]}\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    written = {
        "config": write_config({"one": {}, "two": {}}),
        "wrong": write_config({"a": {"training": {"batchsize": 3}}}, file_name="wrong.yaml"),
        "no_dataset": write_config({"one": {}}, file_name="no_dataset.yaml"),
    }
    _replace(written["no_dataset"], "metadata_path: .*", "metadata_path: nowhere/metadata.yaml")
    _replace(written["wrong"], "name: tiny", "name: no_such_model")
    return {name: str(tmp_path / f"{name}.yaml") for name in texts} | {
        name: str(path) for name, path in written.items()
    }


def _replace(path: Path, old: str, new: str) -> None:
    path.write_text(re.sub(old, new, path.read_text()))


@pytest.mark.parametrize(("argv", "told"), CASES.values(), ids=CASES)
def test_bad_input_is_refused(argv, told, cli, files, tmp_path, tree):
    before = tree(tmp_path)
    outcome = cli(*[word.format(**files) for word in argv])
    assert outcome.code == 2
    assert [text for text in told if text not in outcome.err] == []
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert tree(tmp_path) == before


def test_all_problems_come_at_once(cli, files):
    argv = ["--device", "gpu", "--seed", "x", "--storage", "sqlite://", "--study", "a/b", "--results-file", "no/r.json"]
    lines = cli("run", "--config", files["wrong"], *argv).err.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 7
    assert lines[-1] == "7 problems"


def test_bad_storage_is_told_also_where_a_study_is(cli, run_study):
    outcome = cli(*run_study.run_again, "--storage", "nonsense")
    assert outcome.code == 2
    assert "no scheme" in outcome.err


def test_a_changed_experiment_is_refused(cli, run_study, tmp_path, tree):
    changed = tmp_path / "changed.yaml"
    changed.write_text(run_study.config.read_text().replace("batch_size: 8", "batch_size: 4"))
    before = tree(run_study.folder)
    outcome = cli("run", "--config", changed, "--output-dir", run_study.folder)
    assert outcome.code == 2
    assert "batch_size" in outcome.err
    assert tree(run_study.folder).keys() == before.keys()


def test_an_unreadable_image_is_named(cli, here, tiny_dataset, tiny_models, tmp_path):
    shutil.copytree(tiny_dataset.parent, here / "generated_data", ignore=shutil.ignore_patterns(".pixel_cache"))
    image = next((here / "generated_data" / "train").glob("*.png"))
    image.write_bytes(image.read_bytes()[:100])
    (here / "c.yaml").write_text(f"experiments: {{a: {{model: {{name: tiny, config_path: {tiny_models}}}}}}}")
    for command in (["run", "--config", "c.yaml"], ["validate", "c.yaml"]):
        outcome = cli(*command)
        assert outcome.code == 2
        assert image.name in outcome.err
    assert not Path("training_output").exists()


def test_debug_shows_the_traceback(cli):
    assert "Traceback" in cli("status", "--output-dir", "nope", "--debug").err
