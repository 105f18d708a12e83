"""`enqueue`: adds trials to a study, also while workers train."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from search_spaces import load_model_definitions
from studies import load_study, search_settings, study_status, study_targets
from tuner import HyperparameterTuner
from tuner.display.events import Display
from tuner.session.run_options import RunOptions, StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.study_setup import ExistingStudy
from tuner.workers.loop import work

OUT = Path("training_output")
ONE_EPOCH = {"training": {"num_epochs": 1}}


def rows(folder=OUT):
    return {row.name: row for row in study_status(*load_study(folder)).rows}


def states():
    return {name: row.state.value for name, row in rows().items()}


@pytest.fixture
def interrupted_study(working_dir, write_config, make_watcher):
    """A study whose only preset `one` is interrupted before its first epoch; return its configuration."""
    config = write_config({"one": ONE_EPOCH}, targets={"character_accuracy": 0.99})
    with pytest.raises(KeyboardInterrupt):
        HyperparameterTuner(
            str(config), options=RunOptions(results_file="interrupted.json"), display=make_watcher(in_batch=1)
        ).run_experiments()
    return config


def test_experiments_are_added_only_once(cli, interrupted_study, write_config):
    more = write_config({"one": ONE_EPOCH, "ពីរ": ONE_EPOCH, "three": {}}, file_name="more.yaml")
    first = cli("enqueue", "--config", more, "--experiments", "ពីរ")
    assert (first.code, first.err) == (0, "")
    assert first.out.splitlines()[0] == "added: ពីរ (trial 1)"
    assert first.out.splitlines()[1] == "pending: 2 trials; run `khmer-tuner resume` to train all pending trials"
    again = cli("enqueue", "--config", more, "--json")
    assert json.loads(again.out) == {
        "added": [{"name": "three", "number": 2, "state": "waiting"}],
        "already_there": [
            {"name": "one", "number": 0, "state": "running"},
            {"name": "ពីរ", "number": 1, "state": "waiting"},
        ],
        "search_trials_added": 0,
        "search_trials": 0,
        "pending": 3,
    }
    assert "not added: ពីរ is already in the study (waiting)" in cli("enqueue", "--config", more).out
    assert states() == {"one": "interrupted", "ពីរ": "waiting", "three": "waiting"}
    assert study_targets(load_study(OUT)[0]).character_accuracy == 0.99  # set by the run, not by the added file


def test_enqueue_does_not_retry_a_failed_experiment(cli, run_study, copy_of_the_study):
    enqueued = cli("enqueue", "--config", run_study.config, "--output-dir", copy_of_the_study)
    assert enqueued.out == (
        "not added: broken is already in the study (failed); run `khmer-tuner resume --retry-failed --output-dir "
        f"{copy_of_the_study}` to train it again\n"
        "not added: ខ្មែរ is already in the study (completed)\n"
    )


def test_first_added_search_trials_fix_the_search_settings(cli, interrupted_study):
    added = cli.ok("enqueue", "--trials", "2", "--sampler", "random", "--prune-grace", "3")
    assert "added: 2 search trials; the study now has 2 search trials" in added.out
    assert "added: 1 search trial; the study now has 3 search trials" in cli("enqueue", "--trials", "1").out
    settings = search_settings(load_study(OUT)[0])
    assert settings is not None
    assert (settings.sampler, settings.pruning.prune_grace) == ("random", 3)
    assert list(states().values()) == ["interrupted", "waiting", "waiting", "waiting"]
    shown = cli("status").out
    assert "3 search trials" in shown
    assert "search: 0 of 3 trials, sampler random" in shown


def test_running_command_trains_added_trials(cli, interrupted_study, write_config, make_watcher):
    more = write_config({"two": ONE_EPOCH}, file_name="more.yaml")
    watcher = make_watcher(
        after_epoch=1, action=lambda: cli("enqueue", "--config", more, "--trials", "1", "--sampler", "random")
    )
    work(Session.reopen(ExistingStudy.load(OUT), watcher), TrialFilter(), StopConditions())
    assert [name for name, *_ in watcher.started] == ["one", "two", "search_0002"]
    assert set(states().values()) == {"completed"}
    (search,) = [record for record in load_study(OUT)[0].trials if record.number == 2]
    assert "learning_rate" in search.params


def test_added_experiment_can_use_a_new_model(cli, interrupted_study, tiny_models, write_config):
    models = yaml.safe_load(tiny_models.read_text())
    models["models"]["tiny_too"] = models["models"]["tiny"]
    Path("models.yaml").write_text(yaml.safe_dump(models))
    content = yaml.safe_load(interrupted_study.read_text())
    experiment = content["experiments"]["one"]
    content["experiments"] = {"two": experiment | {"model": {"name": "tiny_too", "config_path": "models.yaml"}}}
    Path("two.yaml").write_text(yaml.safe_dump(content))
    cli.ok("enqueue", "--config", "two.yaml")
    assert "tiny_too" in load_model_definitions(OUT / ".study" / "model_config.yaml")
    work(Session.reopen(ExistingStudy.load(OUT), Display()), TrialFilter(), StopConditions())
    assert states() == {"one": "completed", "two": "completed"}


def test_contradictions_with_the_study_are_reported_together_and_nothing_is_added(
    cli, interrupted_study, write_config, tree
):
    changed = write_config(
        {
            "one": {"training": {"num_epochs": 7}, "early_stopping": {"monitor": "val_loss", "mode": "min"}},
            "two": {"early_stopping": {"monitor": "val_loss", "mode": "min"}},
        },
        file_name="changed.yaml",
    )
    cli("enqueue", "--trials", "1")
    before = states(), tree(OUT).keys()
    refused = cli.error("enqueue", "--config", changed, "--trials", "1", "--sampler", "random", "--seed", "5")
    assert "experiment 'one': the study contains it with other settings (num_epochs was 1 and is 7 now" in refused
    assert "early_stopping.monitor was 'val_char_accuracy' when the study was created and is 'val_loss' now" in refused
    assert "training.seed was 0 when the study was created and is 5 now" in refused
    assert "its search has sampler tpe, not random" in refused
    assert (states(), tree(OUT).keys()) == before


def test_changed_preset_is_refused_as_by_run(cli, interrupted_study, write_config):
    changed = write_config({"one": {"training": {"num_epochs": 7}}}, file_name="changed.yaml")
    enqueued, ran = cli("enqueue", "--config", changed), cli("run", "--config", changed)
    assert (enqueued.code, ran.code) == (2, 2)
    errors = [line for line in enqueued.err.splitlines() if line.startswith("error: ")]
    assert errors == [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert "num_epochs was 1 and is 7 now" in errors[0]


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ([], "found neither --trials nor --config; use --trials for search trials or --config for experiments"),
        (["--space", "space.yaml"], "found neither --trials nor --config"),
        (["--trials", "0"], "--trials: found '0'; expected a whole number from 1 to 1,000,000"),
        (["--trials", "1", "--experiments", "one"], "--experiments: no effect without --config"),
        (["--config", "c.yaml", "--sampler", "tpe", "--prune-grace", "2"], "--sampler, --prune-grace: no effect"),
        (["--config", "c.yaml"], "c.yaml"),
        (["--trials", "1", "--output-dir", "nowhere"], "there is no such folder"),
        (["--trials", "1", "--sampler", "gp", "--pruner", "quantile"], "does not learn from pruned trials"),
    ],
)
def test_options_without_effect_are_refused(cli, interrupted_study, argv, problem):
    assert problem in cli.error("enqueue", *argv)
    assert list(states()) == ["one"]
    assert not Path("nowhere").exists()


def test_space_that_differs_from_the_study_is_refused(cli, interrupted_study, write_space, write_config):
    fitting, other = write_space(), write_space(file_name="other.yaml", batch_size={"low": 8, "high": 64, "step": 8})
    cli.ok("run", "--config", interrupted_study, "--space", fitting, "--output-dir", "spaced")
    enqueue = ["enqueue", "--output-dir", "spaced", "--trials", "1", "--space"]
    cli.ok(*enqueue, fitting)
    assert "batch_size was " in cli.error(*enqueue, other)
    assert len(rows(Path("spaced"))) == 2


def test_dataset_at_another_path_must_have_the_same_content(cli, interrupted_study, tiny_dataset):
    content = yaml.safe_load(interrupted_study.read_text())
    experiment = content["experiments"]["one"]
    for folder in ("moved", "changed", "deleted"):
        moved = experiment | {"data": {"metadata_path": f"{folder}/metadata.yaml"}}
        content["experiments"] = {"two": moved}
        Path(f"{folder}.yaml").write_text(yaml.safe_dump(content))
        shutil.copytree(tiny_dataset.parent, folder)
    images = sorted(Path("changed/train").glob("*.png"))
    images[0].write_bytes(images[1].read_bytes())
    shutil.rmtree("deleted")

    for folder, problem in {
        "changed": "the dataset differs from the study's (fingerprint ",
        "deleted": "deleted/metadata.yaml",
    }.items():
        assert problem in cli.error("enqueue", "--config", f"{folder}.yaml")
    assert list(states()) == ["one"]
    cli.ok("enqueue", "--config", "moved.yaml")
    assert list(states()) == ["one", "two"]


def test_enqueue_imports_no_torch_and_trains_nothing(interrupted_study, write_config):
    more = write_config({"two": ONE_EPOCH}, file_name="more.yaml")
    code = "import sys; from tuner.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    argv = ["enqueue", "--config", str(more), "--trials", "1"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0
    parallelism, *notes = [line.partition(": batch_size")[0] for line in done.stderr.splitlines()]
    assert parallelism == (
        "note: the search starts with --parallelism 1, so its trials are trained one after another by any number of "
        "workers; for more, start a new study (another --output-dir) with --parallelism P"
    )
    assert notes == [
        "note: preset 'one'",
        "note: preset 'two'",
    ]
    assert states() == {"one": "interrupted", "two": "waiting", "search_0002": "waiting"}
