"""`--set`: overrides on the command line, which the study stores like the settings of a file."""

import json
from pathlib import Path

import pytest
import yaml

from studies import TrialKind, load_study, own_records
from tuner.training.history import read_metrics

ONE_EPOCH = ("--set", "training.num_epochs=1")


def configs(folder="out", kind=TrialKind.PRESET):
    return [record.training_config for record in own_records(load_study(folder)[0]) if record.kind is kind]


def test_run_stores_overrides_as_settings_of_the_experiments(cli, write_config):
    run = ["run", "--config", write_config({"one": {}, "two": {}}), "--experiments", "two", "--output-dir", "out"]
    again = [*run, "--results-file", "again.json"]
    cli.ok(*run, *ONE_EPOCH, "--set", "scheduler.min_lr=1e-5")
    assert [(config.num_epochs, config.min_lr) for config in configs()] == [(1, 1e-5)]
    assert len(read_metrics(Path("out/two"))) == 1
    assert yaml.safe_load(Path("out/two/configs/training_config.yaml").read_text())["num_epochs"] == 1
    assert "nothing to train" in cli(*again, *ONE_EPOCH, "--set", "scheduler.min_lr=1e-5").err
    assert "num_epochs was 1 and is 2 now" in cli.error(*again)
    cli.ok("best", "--output-dir", "out", "--out", "best.yaml")
    [best] = yaml.safe_load(Path("best.yaml").read_text())["experiments"].values()
    assert best["training"]["num_epochs"] == 1


def test_dry_run_shows_overrides_and_creates_nothing(cli, working_dir, tree, write_config):
    config = write_config({"one": {}})
    before = tree(working_dir)
    shown = cli.ok("run", "--config", config, "--dry-run", "--set", "training.num_epochs=7", "--set", "model.name=tiny")
    assert [line.split()[-2] for line in shown.out.splitlines() if line.startswith("one")] == ["7"]
    assert "set:     model.name=tiny" in shown.out
    assert tree(working_dir) == before


def test_search_trials_of_a_run_have_the_overrides(cli, write_config, write_space):
    run = ["run", "--config", write_config({"one": {}}), "--space", write_space(), "--trials", "1"]
    cli.ok(*run, "--output-dir", "out", *ONE_EPOCH)
    [trial] = configs(kind=TrialKind.SEARCH)
    assert trial.num_epochs == 1


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_run_refuses_overrides_of_varied_settings(cli, working_dir, tree, write_config, write_space, more):
    run = ["run", "--config", write_config({"one": {}}), "--space", write_space(), "--trials", "1", *more]
    before = tree(working_dir)
    refused = cli.error(*run, "--output-dir", "out", "--set", "training.learning_rate=0.002")
    assert (
        "--set training.learning_rate: the search samples this setting (0.0001 to 0.01, log scale); remove" in refused
    )
    assert tree(working_dir) == before


def test_search_fixes_overrides_when_it_starts(cli, write_config, write_space):
    cli.ok("run", "--config", write_config({"one": {}}), "--space", write_space(), "--output-dir", "out")
    search = ["search", "--trials", "1", "--output-dir", "out", "--results-file", "r.json"]

    varied = cli(*search, "--set", "training.learning_rate=0.002")
    assert (varied.code, varied.err.count("the search samples this setting")) == (2, 1)
    of_the_study = cli.error(*search, "--set", "training.seed=5", "--set", "training.epochs=5")
    assert "--set training.seed: is the same for the whole study; remove this --set" in of_the_study
    assert "--set training.epochs: unknown key; did you mean 'num_epochs'?" in of_the_study
    assert configs(kind=TrialKind.SEARCH) == []

    fixed = (*ONE_EPOCH, "--set", "training.gradient_clip_norm=0.25")
    cli.ok(*search, *fixed)
    cli.ok(*search)
    cli.ok(*search, *fixed)
    assert [(one.num_epochs, one.gradient_clip_norm) for one in configs(kind=TrialKind.SEARCH)] == [(1, 0.25)] * 3
    [preset] = configs()
    assert (preset.num_epochs, preset.gradient_clip_norm) == (2, 1.0)

    other = cli.error(*search, "--set", "training.num_epochs=3")
    assert "its search has num_epochs 1, not 3; all search trials of a study share this setting" in other
    assert len(configs(kind=TrialKind.SEARCH)) == 3


def test_override_that_contradicts_another_option_is_refused(cli, write_config):
    refused = cli.error("run", "--config", write_config({"one": {}}), "--seed", "1", "--set", "training.seed=2")
    assert "--set training.seed: found with --seed; remove one of them" in refused


def test_confirm_retrains_with_the_overrides(cli, write_config):
    experiments = {"one": {}, "two": {"training": {"learning_rate": 0.01}}}
    cli.ok("run", "--config", write_config(experiments), "--output-dir", "out")
    confirm = ["confirm", "--top", "2", "--seeds", "1", "--output-dir", "out"]
    assert json.loads(cli.ok(*confirm, *ONE_EPOCH, "--json").out)["set"] == ["training.num_epochs=1"]
    assert {config.num_epochs for config in configs("out_confirm/seed_1")} == {1}
    assert {config.num_epochs for config in configs("out")} == {2}
    assert "num_epochs was 1 and is 2 now" in cli.error(*confirm)
    impossible = cli.error(*confirm, "--set", "scheduler.min_lr=1")
    assert "scheduler.min_lr: found 1.0; expected at most the initial learning rate" in impossible
