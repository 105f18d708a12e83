"""`--workers auto`: measures the throughput, prints the number of workers and trains with that number."""

import json
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
import torch

from studies import load_study, study_status

OUT = "training_output"
SECONDS_TO_STOP = 10
ONE_EPOCH = {"training": {"num_epochs": 1}}
MEASURED = (
    r"^workers: (?:1, because more workers are not 3% faster|2, with \d+\.\d\d times the images/s of one worker) "
    r"\(1: [\d,]+, 2: [\d,]+ images/s, measured with the settings of one in \d+ s\)$"
)


def workers_lines(text):
    return [line for line in text.splitlines() if line.startswith("workers: ")]


def states():
    return {row.name: row.state.value for row in study_status(*load_study(OUT)).rows}


@pytest.fixture
def _two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_two_threads")
class TestWithTwoThreads:
    @pytest.mark.slow
    def test_worker_count_is_measured_before_pending_trials_are_trained(
        self, cli, write_config, write_space, monkeypatch
    ):
        monkeypatch.setattr("tuner.workers.auto_count._SECONDS_TO_START", 300)  # also on a busy machine
        config, space = write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), write_space(base={"num_epochs": 1})
        argv = ["run", "--config", config, "--space", space, "--workers", "auto"]
        ran = cli.ok(*argv, "--json", "--results-file", "r.json")
        measuring, chosen = workers_lines(ran.err)
        assert measuring == "workers: measuring which number is fastest, with the settings of one"
        assert re.match(MEASURED, chosen)
        assert [entry["status"] for entry in json.loads(ran.out)["all_results"]] == ["completed"] * 2

        again = cli(*argv)
        assert "nothing to train" in again.err
        assert workers_lines(again.err) == []

        single = cli(*argv, "--trials", "1")
        assert workers_lines(single.err) == ["workers: 1, because only one trial can be trained at a time"]
        assert set(states().values()) == {"completed"}

    def test_measurement_uses_only_part_of_the_timeout(self, cli, write_config, monkeypatch):
        monkeypatch.setattr("tuner.workers.auto_count._MAX_FRACTION_OF_TIMEOUT", 0.01)  # no process starts in 0.1 s
        cli.ok("run", "--config", write_config({"one": ONE_EPOCH}))
        late = cli.ok("search", "--trials", "2", "--timeout", "10", "--workers", "auto")
        assert workers_lines(late.err) == [
            "workers: measuring which number is fastest, with the search's base settings",
            "workers: 1, because nothing could be measured: the time limit of the measurement was reached",
        ]

    def test_nothing_is_measured_if_the_targets_are_met(self, cli, write_config):
        targets = {"training_time_per_epoch": 1000}
        config = write_config(dict.fromkeys(["one", "two", "three"], ONE_EPOCH), targets=targets)
        argv = ["run", "--config", config, "--until-targets"]
        cli.ok(*argv, "--experiments", "one")
        ran = cli(*argv, "--workers", "auto")
        assert "one has met the targets" in ran.err
        assert workers_lines(ran.err) == []

    def test_one_worker_trains_if_the_measurement_fails(self, cli, write_config, tmp_path, monkeypatch):
        (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['torch'] = None")  # in new processes
        monkeypatch.syspath_prepend(tmp_path)
        ran = cli.ok("run", "--config", write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), "--workers", "auto")
        assert workers_lines(ran.err)[1].startswith(
            "workers: 1, because nothing could be measured: unexpected ModuleNotFoundError: import of torch halted"
        )
        assert set(states().values()) == {"completed"}


def test_nothing_is_measured_with_one_thread(cli, write_config):
    ran = cli.ok("run", "--config", write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), "--workers", "auto")
    assert workers_lines(ran.err) == ["workers: 1, because PyTorch uses only one thread"]
    assert set(states().values()) == {"completed"}


def test_ctrl_c_during_the_measurement_leaves_no_process_or_file(working_dir, write_config):
    config = str(write_config({"one": {}, "two": {}}))
    command = [sys.executable, "-m", "tuner", "run", "--config", config, "--results-file", "r.json", "--workers"]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    with subprocess.Popen([*command, "auto"], stderr=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stderr is not None
        for line in parent.stderr:
            if line.startswith("workers: measuring"):
                break
        children = []
        while len(children) < 2 and parent.poll() is None:
            children = psutil.Process(parent.pid).children()
        parent.send_signal(signal.SIGINT)
        rest = parent.stderr.read()
    assert parent.returncode == 130
    assert rest == "the results so far are in r.json\nstopped; run the same command again to resume\n"
    _, alive = psutil.wait_procs(children, timeout=SECONDS_TO_STOP)
    assert alive == []
    assert set(states().values()) == {"waiting"}
    assert subprocess.run([*command, "1"], capture_output=True).returncode == 0
    assert set(states().values()) == {"completed"}
