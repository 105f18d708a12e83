"""Full and read-only disks: file systems in memory that are mounted for a test."""

import json
import shutil
import subprocess

import pytest

from studies import RowState, load_study, study_status

KB = 2**10
TRAINING = {"num_epochs": 3, "use_tensorboard": True, "log_every_n_steps": 1}
EXPERIMENTS = {"first": {"training": TRAINING}, "second": {"training": TRAINING}}


def remount(disk, how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def results(path):
    """Read the results of a run without the training times."""
    read = json.loads(path.read_text(encoding="utf-8"))
    return [{name: value for name, value in entry.items() if name != "training_time"} for entry in read["all_results"]]


@pytest.fixture
def config(write_config):
    return write_config(EXPERIMENTS)


@pytest.fixture(scope="module")
def uninterrupted(train_without_interruption):
    """Return the results of the run on a disk with enough space."""
    return results(train_without_interruption(EXPERIMENTS))


@pytest.mark.parametrize("free_bytes", [0, 64 * KB, 192 * KB, 320 * KB, 448 * KB])
def test_full_disk_is_reported_and_no_result_is_lost(free_bytes, disk, fill, cli, config, working_dir, uninterrupted):
    ballast = fill(disk, free_bytes)
    run = ["run", "--config", config, "--output-dir", disk / "out", "--results-file", "results.json"]
    stopped = cli(*run)
    assert stopped.code == 2, stopped.err
    (error,) = [line for line in stopped.err.splitlines() if line.startswith("error: ")]
    assert f"{disk}/out" in error
    assert "free some space on that disk" in error
    assert "Traceback" not in stopped.err + stopped.out
    ballast.unlink()
    cli.ok(*run)
    assert results(working_dir / "results.json") == uninterrupted


def test_permanently_full_disk_fails_no_trial(disk, fill, cli, config, working_dir, uninterrupted):
    ballast = fill(disk, 448 * KB)
    run = ["run", "--config", config, "--output-dir", disk / "out", "--results-file", "results.json"]
    for _ in range(5):
        cli.error(*run)
    ballast.unlink()
    cli.ok(*run)
    assert results(working_dir / "results.json") == uninterrupted


@pytest.mark.slow
def test_parallel_workers_report_a_full_disk(disk, fill, config, working_dir, shell):
    ballast = fill(disk, 448 * KB)
    run = ["khmer-tuner", "run", "--config", str(config), "--output-dir", str(disk / "out"), "--workers", "2"]
    stopped = shell(run, working_dir)
    assert stopped.returncode == 2, stopped.stderr
    errors = [line for line in stopped.stderr.splitlines() if line.startswith("error: ")]
    assert errors
    assert all("free some space on that disk" in error for error in errors)
    assert "Traceback" not in stopped.stderr
    ballast.unlink()
    done = shell(run, working_dir)
    assert done.returncode == 0, done.stderr


def test_results_that_do_not_fit_on_the_disk_can_be_exported_later(disk, fill, cli, config, working_dir):
    ballast = fill(disk, 0)
    stopped = cli.error("run", "--config", config, "--output-dir", "out", "--results-file", disk / "results.json")
    assert f"error: {disk}/results.json: No space left on device" in stopped
    assert [row.state for row in study_status(*load_study(working_dir / "out")).rows] == [RowState.COMPLETED] * 2
    ballast.unlink()
    cli.ok("export", "--output-dir", "out", "--results-file", disk / "results.json")
    assert len(results(disk / "results.json")) == 2


def test_read_only_disk_is_reported_and_its_study_can_be_read(disk, cli, config, working_dir, shell):
    run = ["run", "--config", str(config), "--output-dir", str(disk / "out"), "--results-file", "results.json"]
    # In a separate process, because a disk with files open for writing cannot be remounted read-only.
    assert shell(["khmer-tuner", *run], working_dir).returncode == 0
    expected = results(working_dir / "results.json")
    remount(disk, "ro")
    for command in (run, ["resume", "--output-dir", disk / "out", "--results-file", "results.json"]):
        assert f"{disk}/out; make its disk writable" in cli.error(*command)
    cli.ok("status", "--output-dir", disk / "out")
    cli.ok("export", "--output-dir", disk / "out", "--results-file", "exported.json")
    assert results(working_dir / "exported.json") == expected
    remount(disk, "rw")
    cli.ok(*run)


def test_no_study_is_started_on_a_read_only_disk(disk, cli, config, working_dir):
    remount(disk, "ro")
    assert str(disk) in cli.error("run", "--config", config, "--output-dir", disk / "out")
    assert not any(working_dir.iterdir())


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("data --samples 20 --test-samples 5 --out {disk}/data", "{disk}/data"),
        ("report --output-dir {study} --out {disk}/report.html", "{disk}/report.html"),
        ("best --output-dir {study} --out {disk}/best.yaml", "{disk}/best"),
        ("export --output-dir {study} --results-file {disk}/results.json", "{disk}/results.json"),
        ("export --output-dir {study} --format csv --results-file {disk}/trials.csv", "{disk}/trials.csv"),
        ("enqueue --output-dir {disk}/study --trials 1", "{disk}/study/study.db"),
        ("stop --output-dir {disk}/study", "{disk}/study/study.db"),
        ("search --output-dir {disk}/study --trials 1", "{disk}/study/study.db"),
        ("resume --output-dir {disk}/study --retry-failed", "{disk}/study/study.db"),
    ],
    ids=lambda command: command.split()[0],
)
def test_every_writing_command_reports_a_full_disk(command, named, disk, fill, cli, copy_of_the_study):
    shutil.copytree(copy_of_the_study, disk / "study")
    before = sorted((disk / "study").rglob("*"))
    fill(disk, 0)
    stopped = cli.error(*command.format(disk=disk, study=copy_of_the_study).split())
    (error,) = [line for line in stopped.splitlines() if line.startswith("error: ")]
    assert named.format(disk=disk) in error
    assert "free some space" in error
    assert sorted((disk / "study").rglob("*")) == before
    cli.ok("status", "--output-dir", disk / "study")
