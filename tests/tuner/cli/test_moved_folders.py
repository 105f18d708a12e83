"""Moved and copied output folders can be resumed; without its database or checkpoints, training restarts."""

import json
import os
import shutil
from pathlib import Path

import pytest

from search_spaces import ConfigurationError
from studies import RowState, load_study, study_status
from tuner import HyperparameterTuner
from tuner.session.run_options import RunOptions

EXPERIMENTS = {"first": {"training": {"num_epochs": 3}}, "second": {"training": {"num_epochs": 2}}}


def results(path):
    """Read the results of a study without the training times."""
    read = json.loads(path.read_text(encoding="utf-8"))
    return [{name: value for name, value in entry.items() if name != "training_time"} for entry in read["all_results"]]


@pytest.fixture
def config(write_config):
    return write_config(EXPERIMENTS)


@pytest.fixture(scope="module")
def uninterrupted(train_without_interruption):
    """Return the results of the study without an interruption."""
    return results(train_without_interruption(EXPERIMENTS))


@pytest.fixture
def interrupt(config, make_watcher):
    """Start the study in ``out`` and interrupt it after the first epoch."""

    def start(**options):
        with pytest.raises(KeyboardInterrupt):
            HyperparameterTuner(
                str(config),
                options=RunOptions(output_dir="out", results_file="interrupted.json", **options),
                display=make_watcher(after_epoch=1),
            ).run_experiments()

    return start


def states(folder):
    return [(row.state, row.epochs) for row in study_status(*load_study(folder)).rows]


@pytest.mark.parametrize("command", ["resume", "run"])
def test_moved_folder_resumes_its_interrupted_trial(command, cli, config, working_dir, uninterrupted, interrupt):
    interrupt()
    (working_dir / "elsewhere").mkdir()
    shutil.move(working_dir / "out", working_dir / "elsewhere" / "moved")
    assert states(working_dir / "elsewhere" / "moved") == [(RowState.INTERRUPTED, 1), (RowState.WAITING, 0)]
    arguments = [command, "--output-dir", "elsewhere/moved", "--results-file", "results.json"]
    assert ", resumed)" in cli.ok(*arguments, *(["--config", config] if command == "run" else [])).err
    assert results(working_dir / "results.json") == uninterrupted
    assert not (working_dir / "out").exists()


def test_copied_folder_is_an_independent_study(cli, working_dir, uninterrupted, interrupt):
    interrupt()
    shutil.copytree(working_dir / "out", working_dir / "copy")
    cli.ok("resume", "--output-dir", "copy", "--results-file", "copy.json")
    assert states(working_dir / "out") == [(RowState.INTERRUPTED, 1), (RowState.WAITING, 0)]
    cli.ok("resume", "--output-dir", "out", "--results-file", "out.json")
    assert results(working_dir / "copy.json") == results(working_dir / "out.json") == uninterrupted


def test_copied_folder_cannot_share_a_study_in_another_storage(cli, working_dir, uninterrupted, interrupt):
    storage = f"sqlite:///{working_dir}/elsewhere.db"
    interrupt(storage=storage)
    shutil.copytree(working_dir / "out", working_dir / "copy")
    refused = cli.error("resume", "--output-dir", "copy")
    assert f"it belongs to the output folder {working_dir}/out, not to {working_dir}/copy" in refused
    shutil.rmtree(working_dir / "out")  # without the original, the copy counts as a moved folder
    cli.ok("resume", "--output-dir", "copy", "--results-file", "copy.json")
    assert results(working_dir / "copy.json") == uninterrupted


@pytest.mark.parametrize("change", [Path.unlink, lambda database: database.write_bytes(b"")], ids=["missing", "empty"])
def test_folder_without_its_database_starts_a_new_study_once_its_trials_are_moved(
    change, cli, config, working_dir, uninterrupted, interrupt
):
    interrupt()
    change(working_dir / "out" / "study.db")
    run = ("run", "--config", config, "--output-dir", "out", "--results-file", "results.json")
    refused = cli.error(*run)
    assert "a deleted study" in refused
    (working_dir / "before").mkdir()
    for metrics in (working_dir / "out").glob("*/metrics.jsonl"):
        assert str(metrics.parent) in refused
        metrics.parent.rename(working_dir / "before" / metrics.parent.name)
    cli.ok(*run)
    assert results(working_dir / "results.json") == uninterrupted
    assert states(working_dir / "out") == [(RowState.COMPLETED, 3), (RowState.COMPLETED, 2)]


@pytest.mark.parametrize("storage", ["sqlite", "postgresql"])
@pytest.mark.parametrize("when", [{"in_batch": 2}, {"after_epoch": 3}], ids=str)
def test_folder_moved_during_training_is_not_recreated(
    when, storage, request, cli, config, working_dir, uninterrupted, make_watcher
):
    url = None if storage == "sqlite" else request.getfixturevalue("new_database")()
    options = RunOptions(output_dir="out", results_file="interrupted.json", storage=url)
    watcher = make_watcher(**when, action=lambda: (working_dir / "out").rename(working_dir / "moved"))
    with pytest.raises(ConfigurationError) as caught:
        HyperparameterTuner(str(config), options=options, display=watcher).run_experiments()
    assert str(caught.value).startswith(
        f"output folder {working_dir}/out: it was moved or removed while in use; move it back"
    )
    assert not (working_dir / "out").exists()
    cli.ok("resume", "--output-dir", "moved", "--results-file", "results.json")
    assert results(working_dir / "results.json") == uninterrupted


def test_hard_linked_copy_of_a_folder_is_refused(cli, working_dir, uninterrupted, interrupt):
    interrupt()
    shutil.copytree(working_dir / "out", working_dir / "copy", copy_function=os.link)
    for command in ("resume", "stop"):
        refused = cli.error(command, "--output-dir", "copy")
        assert f"it belongs to the output folder {working_dir}/out, not to {working_dir}/copy" in refused
        assert "cp -a" in refused
    cli.ok("resume", "--output-dir", "out", "--results-file", "out.json")
    assert results(working_dir / "out.json") == uninterrupted
    shutil.rmtree(working_dir / "out")  # without the original, the folder is no copy any more
    cli.ok("resume", "--output-dir", "copy")


@pytest.mark.parametrize(
    ("removed", "epoch"), [("out/first", 1), ("out/first/checkpoints", 1), ("out/first/checkpoints/best.pt", 3)]
)
def test_trial_whose_files_are_deleted_does_not_finish_without_a_checkpoint(
    removed, epoch, cli, config, working_dir, uninterrupted, make_watcher
):
    def remove():
        path = working_dir / removed
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    options = RunOptions(output_dir="out", results_file="interrupted.json")
    with pytest.raises(ConfigurationError, match=rf"^{working_dir}/out/first.*: it was moved or removed while in use"):
        HyperparameterTuner(
            str(config), options=options, display=make_watcher(after_epoch=epoch, action=remove)
        ).run_experiments()
    assert states(working_dir / "out")[0] == (RowState.INTERRUPTED, epoch)
    done = cli.ok("resume", "--output-dir", "out", "--results-file", "results.json")
    assert "training restarts at epoch 1" in done.err
    assert results(working_dir / "results.json") == uninterrupted
    assert (working_dir / "out" / "first" / "checkpoints" / "best.pt").exists()


def test_run_continues_a_study_with_a_missing_owner_file(cli, config, interrupt, uninterrupted, working_dir):
    interrupt()
    (working_dir / "out" / ".study" / "owner.json").unlink()
    cli.ok("run", "--config", config, "--output-dir", "out", "--results-file", "results.json")
    assert results(working_dir / "results.json") == uninterrupted
