"""Several worker processes on one study, with real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from search_spaces import ConfigurationError, load_experiments
from studies import RowState, fix_threads, latest_records, load_study, study_status
from tuner.__main__ import main
from tuner.display.events import Display
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.session.status_poller import StatusPoller
from tuner.session.study_setup import ExistingStudy
from tuner.workers.loop import work
from tuner.workers.process import threads_per_worker
from tuner.workers.supervisor import _Supervisor

OUT = Path("training_output")
ONE_EPOCH = {"training": {"num_epochs": 1}}
# Long enough for another process to act on the training process, on a busy machine, too.
EPOCHS = 40
LONG = {"training": {"num_epochs": EPOCHS, "batch_size": 4}, "early_stopping": {"patience": 100}}
SECONDS_TO_STOP = 10

pytestmark = pytest.mark.usefixtures("in_tmp")


def open_session(config, display):
    return Session.open(RunRequest.from_file(load_experiments(config)), display)


def rows():
    return {row.name: row for row in study_status(*load_study(OUT)).rows}


def epochs_of(name):
    return [json.loads(line)["epoch"] for line in (OUT / name / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("threads", "workers", "each"), [(8, 2, 4), (8, 3, 2), (2, 2, 1), (1, 3, 1), (5, 1, 5), (7, 4, 1)]
)
def test_all_workers_get_the_same_number_of_threads(threads, workers, each):
    assert threads_per_worker(threads, workers) == each


def test_workers_train_each_trial_once_and_standard_output_is_only_json(write_config, write_space, read_results, capfd):
    for module in ("yaml", "torch", "studies"):  # files in the working directory must not shadow modules
        Path(f"{module}.py").write_text("raise RuntimeError('imported from the working directory')")
    argv = ["run", "--config", str(write_config({"one": {}})), "--space", str(write_space()), "--trials", "4"]
    assert main([*argv, "--workers", "2", "--json", "--results-file", "r.json"]) == 0
    captured = capfd.readouterr()
    results = json.loads(captured.out)
    assert read_results(Path("r.json")) == results
    names = ["one", "search_0001", "search_0002", "search_0003", "search_0004"]
    assert [(entry["experiment_name"], entry["status"], entry["total_epochs"]) for entry in results["all_results"]] == [
        (name, "completed", 2) for name in names
    ]
    records = latest_records(load_study(OUT)[0])
    workers = [attempt.worker for record in records for attempt in record.attempts]
    assert len(workers) == len(names)
    assert f":{os.getpid()}" not in {worker[worker.rindex(":") :] for worker in workers}
    for name in names:
        assert epochs_of(name) == [1, 2]
        # Each line about a worker's trial appears exactly once.
        assert len(re.findall(rf"^\[\d/5\] {name}", captured.err, re.MULTILINE)) == 1
        assert len(re.findall(rf"^{name}: max epochs at epoch 2", captured.err, re.MULTILINE)) == 1
    assert len(re.findall(r"^(?:one|search_000\d)?  \d/2  char", captured.err, re.MULTILINE)) == 10


def test_killed_worker_is_replaced_and_its_trial_resumed(write_config, make_watcher):
    open_session(write_config({"three": {}}, file_name="three.yaml"), make_watcher())
    # `one` has been interrupted, and its last checkpoint is damaged.
    first = open_session(write_config({"one": LONG, "two": ONE_EPOCH}), make_watcher(of_trial=1, after_epoch=2))
    trial_filter = TrialFilter(frozenset({"one", "two"}), search=False)
    with pytest.raises(KeyboardInterrupt):
        work(first, trial_filter, StopConditions())
    (OUT / "one" / "checkpoints" / "last.pt").write_bytes(b"damaged")

    def kill_its_worker():
        os.kill(rows()["one"].worker_pid or 0, signal.SIGKILL)

    watcher = make_watcher(of_trial=1, after_epoch=4, action=kill_its_worker)
    quiet = {"training": LONG["training"] | {"log_every_n_steps": 7}, "early_stopping": LONG["early_stopping"]}
    work(
        open_session(write_config({"one": quiet, "two": ONE_EPOCH}), watcher), trial_filter, StopConditions(), workers=2
    )

    assert watcher.lost == [1]
    assert "a worker was killed by SIGKILL (signal 9); a new worker replaces it" in watcher.notes
    assert [note for note in watcher.notes if "last.pt" in note and "resuming one epoch earlier" in note]
    assert {name: row.state for name, row in rows().items()} == {
        "one": RowState.COMPLETED,
        "two": RowState.COMPLETED,
        "three": RowState.WAITING,  # does not match the filter
    }
    assert sorted(watcher.finished) == ["one", "two"]
    assert epochs_of("one") == list(range(1, EPOCHS + 1))
    one = next(record for record in latest_records(load_study(OUT)[0]) if record.experiment_name == "one")
    assert [attempt.after for attempt in one.attempts] == ["waiting", "stop", "crash"]
    trained = yaml.safe_load((OUT / "one" / "configs" / "training_config.yaml").read_text())
    assert trained["log_every_n_steps"] == 7  # settings without effect on the result follow the latest run


class TrialAdder(Display):
    """Adds trials after the first epoch, and requests a stop after the first finished trial."""

    def __init__(self, add):
        self._add = add
        self.finished = []
        self.lost = []
        self.most_running = 0
        self._running = set()

    def epoch_ended(self, number, metrics, signal):
        if self._add is not None:
            self._add()
            self._add = None

    def trial_started(self, number, name, config, *, resumed):
        self._running.add(number)
        self.most_running = max(self.most_running, len(self._running))

    def trial_ended(self, record):
        self._running.discard(record.number)
        self.finished.append(record.experiment_name)
        assert main(["stop", "--output-dir", str(OUT)]) == 0

    def worker_lost(self, number):
        self.lost.append(number)


@pytest.mark.slow
def test_more_workers_start_when_trials_are_added(write_config, make_watcher):
    endless = {"training": {"num_epochs": 100_000}, "early_stopping": {"patience": 100_000}}
    open_session(write_config({"one": endless}), make_watcher())
    more = write_config({"two": {"training": {"num_epochs": 3}}}, file_name="more.yaml")
    display = TrialAdder(lambda: main(["enqueue", "--config", str(more), "--output-dir", str(OUT)]))
    work(Session.reopen(ExistingStudy.load(OUT), display), TrialFilter(), StopConditions(), workers=2)
    assert display.finished == ["two"]
    assert display.most_running == 2
    assert display.lost == []
    assert {name: row.state for name, row in rows().items()} == {
        "one": RowState.INTERRUPTED,
        "two": RowState.COMPLETED,
    }
    one, two = latest_records(load_study(OUT)[0])
    assert len({one.attempts[0].worker, two.attempts[0].worker}) == 2
    assert (len(one.attempts), len(two.attempts)) == (1, 1)


@pytest.mark.slow
def test_workers_stopped_by_a_signal_are_not_replaced_and_their_trials_are_interrupted(write_config, make_watcher):
    def stop_all():
        for child in psutil.Process().children():
            child.send_signal(signal.SIGTERM)

    watcher = make_watcher(after_epoch=1, action=stop_all)
    work(open_session(write_config({"one": LONG, "two": LONG}), watcher), TrialFilter(), StopConditions(), workers=2)
    assert watcher.notes.count("a worker was stopped by SIGTERM (signal 15)") == 2
    assert watcher.notes[-1] == (
        "one, two: still pending, because all workers have exited; run `khmer-tuner resume` to continue"
    )
    assert {row.state for row in rows().values()} <= {RowState.INTERRUPTED, RowState.WAITING}


class TestStopping:
    """A command with workers that is interrupted or killed."""

    def start(self, *argv):
        """Start a command with two workers; return all three processes once a worker has finished an epoch."""
        command = [sys.executable, "-m", "tuner", *argv, "--output-dir", str(OUT), "--workers", "2"]
        parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert parent.stderr is not None
        lines = []
        for line in parent.stderr:
            lines.append(line)
            if re.search(rf"\d/{EPOCHS}  char", line):
                children = psutil.Process(parent.pid).children()
                assert len(children) == 2, "".join(lines)
                return parent, children
        pytest.fail("".join(lines))

    @pytest.mark.slow
    def test_workers_exit_with_their_parent_and_their_trials_are_resumed(self, write_config):
        config = str(write_config({"one": LONG, "two": LONG}))
        parent, children = self.start("run", "--config", config, "--results-file", "stopped.json")
        with parent:
            sent = time.monotonic()
            parent.send_signal(signal.SIGINT)
            assert parent.stderr is not None
            rest = parent.stderr.read()
            assert parent.wait() == 130
            assert time.monotonic() - sent < SECONDS_TO_STOP
        assert not any(child.is_running() for child in children)
        assert rest.endswith("stopped; run the same command again to resume\n")
        assert "Traceback" not in rest
        assert json.loads(Path("stopped.json").read_text())["experiments_completed"] == 0
        before = rows()
        assert {row.worker_pid for row in before.values()} == {None}
        assert {row.state for row in before.values()} <= {RowState.INTERRUPTED, RowState.WAITING}
        assert any(row.epochs for row in before.values())

        parent, children = self.start("resume")
        with parent:
            parent.kill()
            _, remaining = psutil.wait_procs(children, timeout=SECONDS_TO_STOP)
        assert remaining == []
        after = rows()
        assert {row.worker_pid for row in after.values()} == {None}
        # The workers were stopped before they finished their trials.
        assert RowState.INTERRUPTED in {row.state for row in after.values()}
        assert all(after[name].epochs >= row.epochs for name, row in before.items())

        assert main(["resume", "--output-dir", str(OUT), "--results-file", "resumed.json"]) == 0
        entries = json.loads(Path("resumed.json").read_text())["all_results"]
        finished = [(entry["experiment_name"], entry["total_epochs"]) for entry in entries]
        assert finished == [("one", EPOCHS), ("two", EPOCHS)]
        assert epochs_of("one") == epochs_of("two") == list(range(1, EPOCHS + 1))


def run_at_startup(folder, monkeypatch, code):
    """Run code at the start of every Python process from now on."""
    (folder / "sitecustomize.py").write_text(f"import os, sys; {code}")
    monkeypatch.syspath_prepend(folder)


def test_khmer_names_work_in_any_locale(write_config, in_tmp):
    config = write_config({"ខ្មែរ": {}, "ពីរ": {}})
    command = [sys.executable, "-m", "tuner", "run", "--config", str(config), "--workers", "2"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, env=environment)
    stderr = done.stderr.decode("latin-1")
    assert done.returncode == 0, stderr
    assert len(re.findall(r" 2/2  char", stderr)) == 2


@pytest.mark.slow
def test_kills_by_sigabrt_and_sigsegv_do_not_change_the_training(write_config, make_watcher, tmp_path, monkeypatch):
    """A worker kills itself in the second epoch: by SIGABRT, then by SIGSEGV."""
    code = """
import signal
import tuner.training.loop as loop
run_epoch = loop.run_epoch
def run_or_die(training, *rest):
    kills = [number for number in (signal.SIGABRT, signal.SIGSEGV) if not os.path.exists(number.name)]
    if training.config.experiment_name == 'one' and len(training.history) == 1 and kills:
        open(kills[0].name, 'w').close()
        os.kill(os.getpid(), kills[0])
    return run_epoch(training, *rest)
loop.run_epoch = run_or_die
"""
    watcher = make_watcher()
    session = open_session(write_config({"one": {}, "two": {}}), watcher)
    run_at_startup(tmp_path, monkeypatch, code)
    work(session, TrialFilter(), StopConditions(), workers=2)
    assert [note for note in watcher.notes if "killed by" in note] == [
        f"a worker was killed by {killer}, possibly out of memory; a new worker replaces it"
        for killer in ("SIGABRT (signal 6)", "SIGSEGV (signal 11)")
    ]
    one, two = latest_records(load_study(OUT)[0])
    assert [attempt.after for attempt in one.attempts] == ["waiting", "crash", "crash"]
    for record in (one, two):
        assert record.outcome is not None
        assert (record.outcome.why_ended, record.outcome.micro_batch_size) == ("max_epochs", None)


class TestFailingWorkers:
    def test_common_problem_is_reported_once(self, write_config, make_watcher):
        watcher = make_watcher()
        session = open_session(write_config({"one": {}, "two": {}}), watcher)
        fix_threads(session.study, session.context.folder, 1)
        (OUT / "study.db").rename("moved.db")
        with pytest.raises(ConfigurationError, match=r"study\.db: there is no study database") as caught:
            work(session, TrialFilter(), StopConditions(), workers=2)
        assert len(caught.value.problems) == 1
        assert watcher.notes == [f"worker error: {caught.value}"] * 2
        assert watcher.started == []

    @pytest.mark.parametrize(
        ("stderr_text", "problem"),
        [
            (b"first line\nlast line\n", "last line"),
            (b"", "a worker process exited with code 3 without a message; run `khmer-tuner resume` to retry"),
        ],
    )
    def test_worker_that_exits_before_its_start_is_an_error_of_the_command(
        self, stderr_text, problem, write_config, tmp_path, monkeypatch, capfd
    ):
        config = str(write_config({"one": {}, "two": {}}))
        run_at_startup(tmp_path, monkeypatch, f"os.write(2, {stderr_text!r}); os._exit(3)")
        assert main(["run", "--config", config, "--workers", "2", "--results-file", "r.json"]) == 1
        lines = capfd.readouterr().err.splitlines()
        assert lines.count(f"worker error: {problem}") == 2
        assert f"error: {problem}" in lines
        assert "Traceback" not in "".join(lines)
        assert {row.state for row in rows().values()} == {RowState.WAITING}

    def test_traceback_of_a_worker_is_shown_with_debug(self, write_config, tmp_path, monkeypatch, capfd):
        run_at_startup(tmp_path, monkeypatch, "sys.modules['torch'] = None")
        argv = ["run", "--config", str(write_config({"one": {}, "two": {}})), "--workers", "2", "--debug"]
        assert main([*argv, "--results-file", "r.json"]) == 1
        stderr = capfd.readouterr().err
        assert "worker error: unexpected ModuleNotFoundError: import of torch halted" in stderr
        assert "in a worker process:\nTraceback (most recent call last):" in stderr
        assert "worker_main.py" in stderr

    def test_problem_of_a_worker_is_raised_while_trials_are_pending(self, write_config, make_watcher):
        session = open_session(write_config({"one": {}, "two": {}}), make_watcher())
        poller = StatusPoller(session, every_s=1.0)
        supervisor = _Supervisor(session, TrialFilter(), StopConditions(), 0, 1, poller, None)
        # One worker has succeeded, another one has failed because the disk is full.
        supervisor._succeeded, supervisor._problems = True, ["no space left"]
        with pytest.raises(ConfigurationError, match="no space left"):
            supervisor.watch()
        work(session, TrialFilter(), StopConditions())
        supervisor.watch()

    def test_workers_killed_at_startup_are_replaced_at_most_three_times(
        self, write_config, make_watcher, tmp_path, monkeypatch
    ):
        watcher = make_watcher()
        session = open_session(write_config({"one": {}, "two": {}}), watcher)
        run_at_startup(tmp_path, monkeypatch, "os.kill(os.getpid(), 9)")
        with pytest.raises(ConfigurationError, match=r"killed by SIGKILL \(signal 9\) before they started a trial"):
            work(session, TrialFilter(), StopConditions(), workers=2)
        assert watcher.notes.count("a worker was killed by SIGKILL (signal 9); a new worker replaces it") == 6


@pytest.mark.slow
def test_workers_interrupt_their_trials_at_the_time_limit(write_config, make_watcher):
    endless = {"training": {"num_epochs": 100_000}, "early_stopping": {"patience": 100_000}}
    watcher = make_watcher()
    session = open_session(write_config({"one": endless, "two": endless}), watcher)
    work(session, TrialFilter(), StopConditions(deadline=time.monotonic() + 20), workers=2)
    notes = [note for note in watcher.notes if "of the CPU time" not in note]  # a note on a busy machine
    assert notes == ["one, two: still pending, because the time limit was reached"]
    assert {row.state for row in rows().values()} == {RowState.INTERRUPTED}
    assert all(row.epochs > 0 for row in rows().values())
