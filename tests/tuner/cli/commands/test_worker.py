"""`worker`: several processes on this machine, and the checks before the connection to a Ray cluster."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from sqlalchemy import make_url

from studies import RowState, load_study, study_status


@pytest.fixture
def closed_port():
    """Return a port of this machine on which nothing listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def enqueue(cli, config):
    cli.ok("enqueue", "--config", config, "--output-dir", "out")


def test_worker_processes_share_the_pending_trials(cli, write_config):
    cli.ok("run", "--config", write_config({"zero": {}}), "--output-dir", "out")
    enqueue(cli, write_config({name: {"training": {"num_epochs": 20}} for name in ("one", "two")}))
    cli.ok("worker", "--workers", "2", "--output-dir", "out")
    status = json.loads(cli("status", "--json", "--output-dir", "out").out)
    assert status["counts"]["completed"] == 3
    study, _ = load_study("out")
    workers = {trial.user_attrs["attempts"][-1]["worker"] for trial in study.get_trials()[1:]}
    assert len(workers) == 2
    assert not any(worker.endswith(f":{os.getpid()}") for worker in workers)


def test_waiting_processes_start_when_trials_are_added(cli, write_config, environment):
    cli.ok("run", "--config", write_config({"zero": {}}), "--output-dir", "out")
    command = [sys.executable, "-m", "tuner", "worker", "--wait", "--workers", "2", "--output-dir", "out"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "waiting for new trials" in line:
                break
        enqueue(cli, write_config({"one": {}, "two": {}}))
        deadline = time.monotonic() + 120
        study, folder = load_study("out")
        while {row.state for row in study_status(study, folder).rows} != {RowState.COMPLETED}:
            assert process.poll() is None, lines
            assert time.monotonic() < deadline
            time.sleep(0.2)
            study, folder = load_study("out")
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait() == 143


class TestRay:
    def test_missing_package_is_named_before_anything_is_changed(self, cli, run_study, tree, monkeypatch):
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
        before = tree(run_study.folder)
        done = cli.error("worker", "--ray", "auto", "--output-dir", run_study.folder)
        assert done == (
            "error: --ray: the Python package 'ray' is missing; install it: pip install 'khmer-ocr-tuner[ray]'\n"
        )
        assert tree(run_study.folder) == before

    def test_is_imported_only_for_its_option(self, run_study, environment):
        code = f"""
import sys
from tuner.__main__ import main
assert main(["worker", "--workers", "2", "--output-dir", {str(run_study.folder)!r}]) == 0
sys.exit("ray" in sys.modules)
"""
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("part", ["", "?password={password}"])
    def test_password_on_the_command_line_is_refused(self, part, cli, new_database, write_config, monkeypatch):
        made = make_url(new_database())
        url = made.render_as_string(hide_password=False)
        config = write_config({"one": {}})
        cli.ok("run", "--config", config, "--output-dir", "out", "--storage", url)
        if part:
            url = made._replace(password=None).render_as_string() + part.format(password=made.password)
        monkeypatch.setenv("KHMER_TUNER_STORAGE", url)  # a shell may have expanded the variable
        argv = ["worker", "--ray", "127.0.0.1:1", "--output-dir", "out", f"--storage={url}"]
        monkeypatch.setattr(sys, "argv", ["khmer-tuner", *argv])
        done = cli.error(*argv)
        assert "error: --storage: found a URL with a password, but Ray shows the command line" in done
        assert str(made.password) not in done
        monkeypatch.setattr(sys, "argv", ["khmer-tuner", *argv[:-1]])
        assert "error: --ray: no connection" in cli(*argv[:-1]).err

    def test_server_that_is_no_ray_server_is_refused(self, run_study, environment):
        pytest.importorskip("ray")
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            code = f"""
import sys
import tuner.workers.ray_cluster as ray_cluster
from tuner.__main__ import main
ray_cluster._SECONDS_TO_CONNECT = 2.0
sys.exit(main(["worker", "--ray", {address!r}, "--output-dir", {str(run_study.folder)!r}]))
"""
            done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert "no connection to a Ray cluster" in done.stderr
        assert "(no answer within 2 s)" in done.stderr

    @pytest.mark.parametrize(
        ("address", "reason"),
        [
            ("127.0.0.1:{port}", "Connection refused"),
            ("ray://127.0.0.1:{port}", "Connection refused"),
            ("nowhere", "Invalid address format: nowhere"),
            ("https://127.0.0.1", "Invalid Ray address"),
        ],
    )
    def test_address_without_a_cluster_is_refused(self, address, reason, cli, run_study, tree, closed_port):
        pytest.importorskip("ray")
        before = tree(run_study.folder)
        address = address.format(port=closed_port)
        handler = signal.getsignal(signal.SIGTERM)
        done = cli.error("worker", "--ray", address, "--output-dir", run_study.folder)
        assert done.startswith(f"error: --ray: no connection to a Ray cluster at {address!r} (")
        assert reason in done
        assert done.count("\n") == 1
        assert tree(run_study.folder) == before
        assert signal.getsignal(signal.SIGTERM) == handler
