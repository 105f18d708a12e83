"""Fixtures that call the command line in this process, and a finished study with a failed experiment."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tuner import HyperparameterTuner, RunOptions
from tuner.__main__ import main


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _no_storage_variable(monkeypatch):
    monkeypatch.delenv("KHMER_TUNER_STORAGE", raising=False)


@pytest.fixture
def working_dir(tmp_path, monkeypatch):
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


class CommandLine:
    """Calls commands in this process, without a terminal."""

    def __init__(self, capfd):
        self._capfd = capfd

    def __call__(self, *argv):
        """Return the outcome of a command."""
        self._capfd.readouterr()
        code = main([str(word) for word in argv])
        captured = self._capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    def ok(self, *argv):
        """Return the outcome of a command that must succeed."""
        outcome = self(*argv)
        assert outcome.code == 0, (argv, outcome.err)
        return outcome

    def error(self, *argv):
        """Return the messages of a command that must refuse its input, without a traceback."""
        outcome = self(*argv)
        assert outcome.code == 2, (argv, outcome)
        assert outcome.out == "" or argv[0] == "validate", outcome  # which shows the valid parts of its input, too
        assert "Traceback" not in outcome.err
        return outcome.err


@pytest.fixture
def cli(working_dir, capfd):
    """Call commands in the empty working directory."""
    return CommandLine(capfd)


@dataclass(frozen=True)
class RunStudy:
    """A study whose experiments are finished, with the exit code of its `run`."""

    folder: Path
    config: Path
    results: Path
    code: int

    @property
    def run_again(self):
        """The command that created the study, without its results file."""
        return ["run", "--config", str(self.config), "--output-dir", str(self.folder)]


@pytest.fixture(scope="session")
def run_study(tmp_path_factory, tiny_dataset, tiny_models, make_watcher, fail):
    """A read-only study: experiment `broken` failed after its first epoch, experiment `ខ្មែរ` completed."""
    folder = tmp_path_factory.mktemp("run_study")
    common = {
        "model": {"name": "tiny", "config_path": str(tiny_models)},
        "data": {"metadata_path": str(tiny_dataset)},
        "training": {"device": "cpu", "batch_size": 8, "num_epochs": 2, "use_tensorboard": False},
    }
    config = folder / "config.yaml"
    targets = {"character_accuracy": 0.99, "training_time_per_epoch": 1000}
    content = {"experiments": {"broken": common, "ខ្មែរ": common}, "targets": targets}
    config.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    study = RunStudy(folder / "out", config, folder / "results.json", 1)
    options = RunOptions(study.folder, results_file=str(study.results))
    HyperparameterTuner(
        str(config), options=options, display=make_watcher(after_epoch=1, action=fail)
    ).run_experiments()
    before = os.getcwd()
    os.chdir(folder)
    code = main([*study.run_again, "--results-file", str(study.results)])
    os.chdir(before)
    return RunStudy(study.folder, study.config, study.results, code)


@pytest.fixture
def copy_of_the_study(run_study, tmp_path):
    """A writable copy of the folder of `run_study`, whose experiment `broken` would not fail again."""
    folder = tmp_path / "copy"
    shutil.copytree(run_study.folder, folder)
    return folder


@pytest.fixture
def tree():
    """List all paths below a folder with their modification times."""

    def list_all(folder):
        return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in sorted(folder.rglob("*"))}

    return list_all


@pytest.fixture(scope="module")
def train_without_interruption(configs_in, tmp_path_factory):
    """Return a function that trains experiments in a new folder and returns their results file."""

    def train(experiments):
        folder = tmp_path_factory.mktemp("uninterrupted")
        options = RunOptions(output_dir=folder / "out", results_file=str(folder / "results.json"))
        HyperparameterTuner(str(configs_in(folder)(experiments)), options=options).run_experiments()
        return folder / "results.json"

    return train
