"""Workers in a real Ray cluster: lost nodes, signals, GPUs, and the password of the database."""

import contextlib
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import sqlalchemy
import torch
from optuna.trial import TrialState

from search_spaces import load_experiments
from studies import RowState, load_study, read_record, study_status
from studies.storage.open import open_storage_for_reading
from studies.trials.record import StartedAfter
from tuner.display.events import Display
from tuner.session.run_options import RunOptions
from tuner.session.run_request import RunRequest
from tuner.session.session import Session

pytest.importorskip("ray")

# Types of scripts/harness, which is imported below.
RayNodes = Any

ROOT = Path(__file__).parents[3]
NAME = "khmer-ocr"
EPOCHS = 60
PRESETS = {
    f"rate_{rate}_batch_{batch}": {"training": {"learning_rate": rate, "batch_size": batch, "num_epochs": EPOCHS}}
    for rate in (0.001, 0.002, 0.003, 0.004, 0.005, 0.006)
    for batch in (8, 12, 16, 32)
}
LONG = {"training": {"num_epochs": 100_000}, "early_stopping": {"patience": 100_000}}
DASHBOARD = (
    *(
        f"/api/v0/{kind}?detail=1"
        for kind in ("tasks", "actors", "jobs", "workers", "objects", "nodes", "runtime_envs")
    ),
    *("/api/jobs/", "/logical/actors", "/nodes?view=summary", "/api/cluster_status", "/events"),
)
PATIENCE_S = 300.0
SECONDS_TO_STOP = 10.0


@pytest.fixture(scope="module")
def ray_nodes():
    """Return a function that starts a Ray cluster, which all later tests of the module with the same nodes share."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as clusters:
        patch.syspath_prepend(ROOT / "scripts")
        module = importlib.import_module("harness.ray_nodes")

        def start(nodes, **resources):
            return clusters.enter_context(module.RayNodes(nodes, **resources))

        yield start


@pytest.fixture(scope="module")
def small_cluster(ray_nodes):
    """A cluster of two nodes with one CPU and one GPU each."""
    return ray_nodes(2, cpus=1, gpus=1)


class Command:
    """A running khmer-tuner command, whose lines are stored with the times at which they were printed."""

    def __init__(self, *arguments, **variables):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("khmer-tuner")), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment | {"OMP_NUM_THREADS": "1"} | variables,
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.lines.append((time.monotonic(), line.rstrip()))

    @property
    def text(self):
        return "\n".join(line for _, line in self.lines)

    def times(self, pattern):
        """Return the times at which lines with a pattern were printed."""
        return [when for when, line in self.lines if re.search(pattern, line)]

    def wait_for(self, pattern, count=1):
        """Wait until `count` lines with a pattern were printed; fail if the command ends before."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.times(pattern)) < count:
            if self.process.poll() is not None or time.monotonic() >= deadline:
                pytest.fail(f"no {count} lines with {pattern!r} (exit code {self.process.poll()}):\n{self.text}")
            time.sleep(0.1)

    def end(self, code):
        assert self.process.wait(PATIENCE_S) == code, self.text
        self._reader.join()
        return self.text


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a function that starts a command in an empty folder; it is killed at the end of the test."""
    monkeypatch.chdir(tmp_path)
    started = []

    def run(*arguments, **variables):
        started.append(Command(*arguments, **variables))
        return started[-1]

    yield run
    for command in started:
        command.process.kill()
        command.process.wait()


def create_study(config, url):
    """Create a study with all presets of a file in the folder ``out``; nothing is trained."""
    options = RunOptions(output_dir="out", storage=url, device="cpu")
    Session.open(RunRequest.from_file(load_experiments(config), options=options), Display())


def trials_of(url):
    storage = open_storage_for_reading(url)
    try:
        return optuna.load_study(study_name=NAME, storage=storage).get_trials()
    finally:
        storage.engine.dispose()


def states(url):
    study, folder = load_study("out", storage_url=url)
    return {row.state for row in study_status(study, folder).rows}


def worker_processes():
    """Return the worker processes that Ray tasks have started on this machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            parent = process.parent()
            is_in_ray = parent is not None and "ray::" in " ".join(parent.cmdline())
            found += [process] if is_in_ray and "tuner.cli.worker_main" in process.cmdline() else []
    return found


def places_of(secret, cluster, *folders):
    """Return where a secret is found: files, the dashboard, command lines, and environments of Ray and the workers."""
    found = [
        str(path)
        for folder in (cluster.folder, *folders)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes()
    ]
    for path in DASHBOARD:
        with urllib.request.urlopen(cluster.dashboard + path) as answer:  # raises for an error of the server
            text = answer.read().decode()
        if any(kind in path for kind in ("tasks", "jobs", "actors")):
            assert "khmer-tuner" in text or "Events" in text
        found += [path] if secret in text else []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            shown = [*command]
            if re.search("ray::|/ray/", " ".join(command)) or "tuner.cli.worker_main" in command:
                shown += process.environ().values()
            found += [" ".join(command)] if secret in "\0".join(shown) else []
    return found


@pytest.mark.slow
def test_no_trial_is_lost_and_no_password_shown_when_two_of_four_nodes_are_lost(
    ray_nodes, new_database, write_config, start, result_of, tmp_path
):
    config, url = write_config(PRESETS), sqlalchemy.make_url(new_database())
    start("run", "--config", config, "--output-dir", "reference", "--threads", "1").end(0)
    cluster = ray_nodes(4, cpus=2, dashboard=True)
    create_study(config, url.render_as_string(hide_password=False))
    # libpq finds the password in the environment of the command only, so the command must pass it on.
    public = url._replace(password=None).render_as_string()
    worker = ["worker", "--ray", cluster.address, "--workers", "8", "--output-dir", "out", "--storage", public]
    command = start(*worker, PGPASSWORD=str(url.password))
    command.wait_for(": tiny, batch", 8)  # all workers are training
    cluster.add()
    restarted, resumed = "Ray has restarted a lost worker", r"resumed\): tiny"
    removed = time.monotonic()
    cluster.remove(1)
    command.wait_for(restarted, 2)  # on the new node
    command.wait_for(resumed, 2)
    assert places_of(str(url.password), cluster, tmp_path) == []
    cluster.remove(2)
    output = command.end(0)

    assert places_of(str(url.password), cluster, tmp_path) == []
    assert str(url.password) not in output
    assert "raylet" not in output
    trials = trials_of(url.render_as_string(hide_password=False))
    assert sorted(read_record(trial).experiment_name for trial in trials) == sorted(PRESETS)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(command.times(restarted)) == 4
    # A worker of the second node may have been between two trials.
    assert len(command.times(resumed)) >= 3
    assert sum(len(read_record(trial).attempts) for trial in trials) == len(PRESETS) + len(command.times(resumed))
    expected = {
        trial.name: trial
        for trial in (result_of(one, Path("reference")) for one in trials_of("sqlite:///reference/study.db"))
    }
    for trial in trials:
        assert result_of(trial, Path("out")) == expected[read_record(trial).experiment_name]
    for event in (restarted, resumed):
        print(
            f"{event!r}: {', '.join(f'{when - removed:.1f}' for when in command.times(event))} s after the first loss"
        )


@pytest.mark.slow
def test_workers_end_with_the_command_and_their_trials_can_be_resumed(small_cluster, new_database, write_config, start):
    url = new_database()
    create_study(write_config({"one": LONG, "two": LONG}), url)
    worker = ["worker", "--ray", small_cluster.address, "--workers", "2", "--output-dir", "out"]
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        command = start(*worker, KHMER_TUNER_STORAGE=url)
        for name in ("one", "two"):
            command.wait_for(rf"{name} +\d+/100000")
        processes = worker_processes()
        assert len(processes) == 2
        sent = time.monotonic()
        command.process.send_signal(number)
        command.end(code)
        assert time.monotonic() - sent < SECONDS_TO_STOP
        _, running = psutil.wait_procs(processes, SECONDS_TO_STOP)
        assert running == []
        assert "Traceback" not in command.text
        assert "SIGTERM received" not in command.text
        if number != signal.SIGKILL:
            assert command.lines[-1][1] == "stopped; run the same command again to resume"
        assert states(url) == {RowState.INTERRUPTED}

    command = start(*worker, KHMER_TUNER_STORAGE=url)
    command.wait_for("resumes at epoch", 2)
    start("stop", "--wait", "--output-dir", "out", KHMER_TUNER_STORAGE=url).end(0)
    assert "a stop was requested" in command.end(0)
    for trial in trials_of(url):
        after = [attempt.after for attempt in read_record(trial).attempts]
        # Ray may kill a worker before it has released its trial if the command was killed.
        assert after[:3] == [StartedAfter.WAITING, StartedAfter.STOP, StartedAfter.STOP]
        assert len(after) == 4


@pytest.mark.slow
def test_waiting_command_starts_workers_that_share_a_gpu_when_trials_are_added(
    small_cluster, new_database, write_config, start
):
    url = new_database()
    create_study(write_config({"one": {}}), url)
    options = ["--output-dir", "out", "--device", "cpu"]
    resources = ["--cpus", "1", "--gpus", "0.5", "--workers", "5"]
    command = start("worker", "--wait", "--ray", small_cluster.address, *resources, *options, KHMER_TUNER_STORAGE=url)
    command.wait_for("waiting for new trials")
    assert "can run 2 of 5 workers with 1 CPU and 0.5 GPUs each" in command.text
    assert worker_processes() == []
    added = write_config({"two": LONG, "three": LONG}, file_name="added.yaml")
    start("enqueue", "--config", added, "--output-dir", "out", KHMER_TUNER_STORAGE=url).end(0)
    command.wait_for(r" 1/100000  char", 2)
    devices = [process.environ()["CUDA_VISIBLE_DEVICES"] for process in worker_processes()]
    assert devices == ["0", "0"]
    start("stop", "--wait", "--output-dir", "out", KHMER_TUNER_STORAGE=url).end(0)
    command.end(0)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that the nodes declare")
def test_problems_of_the_nodes_are_reported(small_cluster, new_database, write_config, start):
    url, config = new_database(), write_config({"one": {}, "two": {}})
    create_study(config, url)
    cuda = ["--device", "cuda", "--gpus", "1", "--workers", "2"]
    ray = ["worker", "--ray", small_cluster.address, "--output-dir"]
    output = start(*ray, "out", *cuda, KHMER_TUNER_STORAGE=url).end(2)
    assert "worker error: device: found 'cuda'" in output
    assert states(url) == {RowState.WAITING}

    start("run", "--config", config, "--output-dir", "sqlite").end(0)
    output = start(*ray, "sqlite").end(2)
    assert re.search(r"error: --ray: .* SQLite, .* the cluster has 2 nodes \(\S+\); use a PostgreSQL storage", output)


@pytest.mark.slow
def test_command_ends_with_a_message_if_the_head_node_is_lost(ray_nodes, new_database, write_config, start):
    url, cluster = new_database(), ray_nodes(1, cpus=1)
    create_study(write_config({"one": LONG}), url)
    command = start("worker", "--ray", cluster.address, "--output-dir", "out", KHMER_TUNER_STORAGE=url)
    command.wait_for(r" 1/100000  char")
    (worker,) = worker_processes()
    cluster.close()
    assert command.process.wait(PATIENCE_S) != 0
    psutil.wait_procs([worker], SECONDS_TO_STOP)
    assert states(url) == {RowState.INTERRUPTED}


@pytest.mark.slow
def test_new_cluster_on_this_machine_trains_a_study_in_sqlite(write_config, start):
    create_study(write_config({"one": {}, "two": {}}), "sqlite:///out/study.db")
    start("worker", "--ray", "local", "--workers", "2", "--output-dir", "out").end(0)
    assert states("sqlite:///out/study.db") == {RowState.COMPLETED}
