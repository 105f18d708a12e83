"""Pipes, devices, deeply nested brackets and sparse files in place of the files of a study."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from studies import RowState, load_study, study_status
from tuner import HyperparameterTuner, RunOptions


@pytest.fixture(autouse=True)
def _at_most_a_minute():
    """Fail a test in which a command waits for a pipe."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the command waits for a pipe"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def replace(path, kind):
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(300 * 10**9)
    else:
        path.write_text("[" * 200_000)


def error_of(done):
    assert done.code == 2, done.err
    assert "unexpected" not in done.err + done.out
    (error,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    return str(error)


@pytest.mark.parametrize("command", ["status", "resume"])
@pytest.mark.parametrize("kind", ["pipe", "device", "brackets", "sparse"])
def test_special_file_in_place_of_the_owner_file_is_an_error(kind, command, cli, copy_of_the_study):
    owner = copy_of_the_study / ".study" / "owner.json"
    replace(owner, kind)
    error = error_of(cli(command, "--output-dir", copy_of_the_study))
    assert str(owner) in error
    assert "restore the file or choose another --output-dir" in error


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_special_file_in_place_of_the_metrics_hides_only_the_epochs(kind, cli, copy_of_the_study):
    path = copy_of_the_study / "ខ្មែរ" / "metrics.jsonl"
    replace(path, kind)
    assert f"{path} has 0 of 2 epochs" in cli("show", "ខ្មែរ", "--output-dir", copy_of_the_study).out
    for command in ("status", "report", "best"):
        cli.ok(command, "--output-dir", copy_of_the_study)


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_special_file_in_place_of_the_log_is_an_error(kind, cli, copy_of_the_study):
    path = copy_of_the_study / "ខ្មែរ" / "logs" / "training.log"
    replace(path, kind)
    error = error_of(cli("show", "ខ្មែរ", "--output-dir", copy_of_the_study))
    assert str(path) in error
    assert "remove it or restore the original file" in error
    assert cli("status", "--output-dir", copy_of_the_study).code in (0, 1)


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_special_file_in_place_of_a_checkpoint_is_an_error(kind, cli, copy_of_the_study, tiny_dataset):
    best = copy_of_the_study / "ខ្មែរ" / "checkpoints" / "best.pt"
    replace(best, kind)
    error = error_of(cli("evaluate", "--output-dir", copy_of_the_study, "--metadata", tiny_dataset, "--split", "test"))
    assert str(best) in error


@pytest.fixture
def interrupted_run(write_config, make_watcher, working_dir):
    """The command that resumes the experiment `a`, which was interrupted in its second epoch."""
    config = write_config({"a": {}})
    tuner = HyperparameterTuner(str(config), options=RunOptions("out"), display=make_watcher(in_batch=8))
    with pytest.raises(KeyboardInterrupt):
        tuner.run_experiments()
    return ["run", "--config", str(config), "--output-dir", "out"]


@pytest.mark.parametrize("file", ["metrics.jsonl", "configs/training_config.yaml"])
def test_trial_replaces_pipes_in_place_of_its_output_files(file, cli, interrupted_run, working_dir):
    path, model_copy = working_dir / "out" / "a" / file, working_dir / "out" / ".study" / "model_config.yaml"
    for place in (path, model_copy):
        place.unlink(missing_ok=True)
        os.mkfifo(place)
    cli.ok(*interrupted_run)
    assert path.is_file()
    assert model_copy.is_file()


@pytest.mark.parametrize("file", ["a/logs/training.log", "a/checkpoints/last.pt", ".study/leases/0000.lock"])
def test_pipe_that_stops_training_is_named_and_the_trial_stays_pending(file, cli, interrupted_run, working_dir):
    path = working_dir / "out" / file
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    error = error_of(cli(*interrupted_run))
    assert f"error: {path}: " in error
    assert error.endswith("; remove it or restore the original file, then run the command again")
    path.unlink()
    cli.ok(*interrupted_run)


def test_huge_metadata_file_is_refused(cli, write_config, working_dir, tiny_dataset):
    metadata = working_dir / "metadata.yaml"
    replace(metadata, "sparse")
    config = write_config({"a": {}})
    config.write_text(config.read_text(encoding="utf-8").replace(str(tiny_dataset), str(metadata)), encoding="utf-8")
    error = error_of(cli("run", "--config", config, "--output-dir", "out"))
    assert f"{metadata}: the dataset's metadata file cannot be read: the file has 300,000,000,000 bytes" in error
    assert "expected at most 2,000,000,000; use the path of the dataset's metadata.yaml" in error
    assert not (working_dir / "out").exists()


def test_truncated_cached_pixels_stop_the_command_and_are_decoded_again(
    cli, write_config, working_dir, tiny_dataset, environment
):
    shutil.copytree(tiny_dataset.parent, working_dir / "data", ignore=shutil.ignore_patterns(".*"))
    config = write_config({"a": {"training": {"num_epochs": 60}}})
    text = config.read_text(encoding="utf-8").replace(str(tiny_dataset), str(working_dir / "data" / "metadata.yaml"))
    config.write_text(text, encoding="utf-8")
    run = ["run", "--config", str(config), "--output-dir", "out"]
    with subprocess.Popen(
        [sys.executable, "-m", "tuner", *run], cwd=working_dir, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            metrics = working_dir / "out" / "a" / "metrics.jsonl"
            while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
                time.sleep(0.01)
            pixels = working_dir / "data" / ".pixel_cache" / "metadata.yaml.train.npy"
            size = pixels.stat().st_size
            os.truncate(pixels, 4096)
            _, errors = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 2, errors
    assert f"error: {pixels}: the cached pixels were truncated while in use" in errors
    assert [row.state for row in study_status(*load_study(working_dir / "out")).rows] == [RowState.INTERRUPTED]
    cli.ok(*run)
    assert pixels.stat().st_size == size
