"""Several worker processes on one study; all of them are real."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from search_spaces import ConfigurationError, TrainingConfig, load_experiments
from studies import RowState, StatusRow, TrialRecord, latest_records, load_study, study_status
from tuner.__main__ import main
from tuner.display import Display
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.session.status_poller import StatusPoller
from tuner.session.study_setup import ExistingStudy
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics
from tuner.workers.loop import work
from tuner.workers.process import shared_threads
from tuner.workers.supervisor import _Supervisor

WriteConfig = Callable[..., Path]
WriteSpace = Callable[..., Path]
MakeWatcher = Callable[..., Any]
OUT = Path("training_output")
ONE_EPOCH = {"training": {"num_epochs": 1}}
# Long enough for another process to do something to the one that trains it, on a busy machine too.
EPOCHS = 40
LONG = {"training": {"num_epochs": EPOCHS, "batch_size": 4}, "early_stopping": {"patience": 100}}
SECONDS_TO_STOP = 10

pytestmark = pytest.mark.usefixtures("in_tmp")


def opened(config: Path, display: Any) -> Session:
    return Session.open(RunRequest.from_file(load_experiments(config)), display)


def rows() -> dict[str, StatusRow]:
    return {row.name: row for row in study_status(*load_study(OUT)).rows}


def epochs_of(name: str) -> list[int]:
    return [json.loads(line)["epoch"] for line in (OUT / name / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("threads", "workers", "shared"),
    [(8, 2, [4, 4]), (8, 3, [3, 3, 2]), (2, 2, [1, 1]), (1, 3, [1, 1, 1]), (5, 1, [5]), (7, 4, [2, 2, 2, 1])],
)
def test_threads_are_shared_as_evenly_as_they_go(threads: int, workers: int, shared: list[int]) -> None:
    assert shared_threads(threads, workers) == shared


def test_workers_train_every_trial_once_and_only_json_goes_to_standard_output(
    write_config: WriteConfig, write_space: WriteSpace, read_results: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    for module in ("yaml", "torch", "studies"):  # files of the working directory are not taken for modules
        Path(f"{module}.py").write_text("raise RuntimeError('not this one')")
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
        # Of what the workers do, every line is here, once.
        assert len(re.findall(rf"^\[\d/5\] {name}", captured.err, re.MULTILINE)) == 1
        assert len(re.findall(rf"^{name}: max epochs at epoch 2", captured.err, re.MULTILINE)) == 1
    assert len(re.findall(r"^(?:one|search_000\d)?  \d/2  char", captured.err, re.MULTILINE)) == 10


def test_a_worker_that_is_killed_is_replaced_and_its_trial_adopted(
    write_config: WriteConfig, make_watcher: MakeWatcher
) -> None:
    opened(write_config({"three": {}}, file_name="three.yaml"), make_watcher())
    # `one` has been interrupted, and its last checkpoint is damaged.
    first = opened(write_config({"one": LONG, "two": ONE_EPOCH}), make_watcher(of_trial=1, after_epoch=2))
    scope = TrialFilter(frozenset({"one", "two"}), search=False)
    with pytest.raises(KeyboardInterrupt):
        work(first, scope, StopConditions())
    (OUT / "one" / "checkpoints" / "last.pt").write_bytes(b"damaged")

    def kill_its_worker() -> None:
        os.kill(rows()["one"].worker_pid or 0, signal.SIGKILL)

    watcher = make_watcher(of_trial=1, after_epoch=4, happens=kill_its_worker)
    quiet = {"training": LONG["training"] | {"log_every_n_steps": 7}, "early_stopping": LONG["early_stopping"]}
    work(opened(write_config({"one": quiet, "two": ONE_EPOCH}), watcher), scope, StopConditions(), workers=2)

    assert watcher.lost == [1]
    assert "a worker was killed by signal 9; a new worker replaces it" in watcher.notes
    assert [note for note in watcher.notes if "last.pt" in note and "resuming one epoch earlier" in note]
    assert {name: row.state for name, row in rows().items()} == {
        "one": RowState.COMPLETED,
        "two": RowState.COMPLETED,
        "three": RowState.WAITING,  # nobody asked for it
    }
    assert sorted(watcher.ended) == ["one", "two"]
    assert epochs_of("one") == list(range(1, EPOCHS + 1))
    one = next(record for record in latest_records(load_study(OUT)[0]) if record.experiment_name == "one")
    assert [attempt.after for attempt in one.attempts] == ["waiting", "stop", "crash"]
    trained = yaml.safe_load((OUT / "one" / "configs" / "training_config.yaml").read_text())
    assert trained["log_every_n_steps"] == 7  # where and how the work is done, as the latest run says


class Adding(Display):
    """Adds work once a trial has had an epoch, and asks all to stop once another trial has ended."""

    def __init__(self, add: Callable[[], object]) -> None:
        self._add: Callable[[], object] | None = add
        self.ended: list[str] = []
        self.lost: list[int] = []
        self.most_running = 0
        self._running: set[int] = set()

    def epoch_ended(self, number: int, metrics: EpochMetrics, signal: EarlyStopping) -> None:
        if self._add is not None:
            self._add()
            self._add = None

    def trial_started(self, number: int, name: str, config: TrainingConfig, *, resumed: bool) -> None:
        self._running.add(number)
        self.most_running = max(self.most_running, len(self._running))

    def trial_ended(self, record: TrialRecord) -> None:
        self._running.discard(record.number)
        self.ended.append(record.experiment_name)
        assert main(["stop", "--output-dir", str(OUT)]) == 0

    def worker_lost(self, number: int) -> None:
        self.lost.append(number)


@pytest.mark.slow
def test_further_workers_begin_when_work_is_added(write_config: WriteConfig, make_watcher: MakeWatcher) -> None:
    endless = {"training": {"num_epochs": 100_000}, "early_stopping": {"patience": 100_000}}
    opened(write_config({"one": endless}), make_watcher())
    more = write_config({"two": {"training": {"num_epochs": 3}}}, file_name="more.yaml")
    display = Adding(lambda: main(["enqueue", "--config", str(more), "--output-dir", str(OUT)]))
    work(Session.reopen(ExistingStudy.load(OUT), display), TrialFilter(), StopConditions(), workers=2)
    assert display.ended == ["two"]
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
def test_workers_that_are_asked_to_stop_are_not_replaced_and_leave_their_trials(
    write_config: WriteConfig, make_watcher: MakeWatcher
) -> None:
    def stop_all() -> None:
        for child in psutil.Process().children():
            child.send_signal(signal.SIGTERM)

    watcher = make_watcher(after_epoch=1, happens=stop_all)
    work(opened(write_config({"one": LONG, "two": LONG}), watcher), TrialFilter(), StopConditions(), workers=2)
    assert watcher.notes.count("a worker was stopped by signal 15") == 2
    assert watcher.notes[-1] == (
        "one, two: still pending, because all workers have exited; `khmer-tuner resume` trains them"
    )
    assert {row.state for row in rows().values()} <= {RowState.INTERRUPTED, RowState.WAITING}


class TestStopping:
    """A command with workers, stopped from outside."""

    def begin(self, *argv: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
        """Start a command with two workers; return it and them once one has finished an epoch."""
        command = [sys.executable, "-m", "tuner", *argv, "--output-dir", str(OUT), "--workers", "2"]
        parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert parent.stderr is not None
        told = []
        for line in parent.stderr:
            told.append(line)
            if re.search(rf"\d/{EPOCHS}  char", line):
                children = psutil.Process(parent.pid).children()
                assert len(children) == 2, "".join(told)
                return parent, children
        pytest.fail("".join(told))

    @pytest.mark.slow
    def test_workers_end_with_their_parent_and_what_they_had_is_resumed(self, write_config: WriteConfig) -> None:
        config = str(write_config({"one": LONG, "two": LONG}))
        parent, children = self.begin("run", "--config", config, "--results-file", "stopped.json")
        with parent:
            sent = time.monotonic()
            parent.send_signal(signal.SIGINT)
            assert parent.stderr is not None
            rest = parent.stderr.read()
            assert parent.wait() == 130
            assert time.monotonic() - sent < SECONDS_TO_STOP
        assert not any(child.is_running() for child in children)
        assert rest.endswith("stopped; the same command goes on where it left\n")
        assert "Traceback" not in rest
        assert json.loads(Path("stopped.json").read_text())["experiments_completed"] == 0
        before = rows()
        assert {row.worker_pid for row in before.values()} == {None}
        assert {row.state for row in before.values()} <= {RowState.INTERRUPTED, RowState.WAITING}
        assert any(row.epochs for row in before.values())

        parent, children = self.begin("resume")
        with parent:
            parent.kill()
            _, left = psutil.wait_procs(children, timeout=SECONDS_TO_STOP)
        assert left == []
        after = rows()
        assert {row.worker_pid for row in after.values()} == {None}
        assert RowState.INTERRUPTED in {row.state for row in after.values()}  # they did not just come to an end
        assert all(after[name].epochs >= row.epochs for name, row in before.items())

        assert main(["resume", "--output-dir", str(OUT), "--results-file", "resumed.json"]) == 0
        entries = json.loads(Path("resumed.json").read_text())["all_results"]
        ended = [(entry["experiment_name"], entry["total_epochs"]) for entry in entries]
        assert ended == [("one", EPOCHS), ("two", EPOCHS)]
        assert epochs_of("one") == epochs_of("two") == list(range(1, EPOCHS + 1))


def at_start(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let something happen at the start of every Python process to come."""
    (folder / "sitecustomize.py").write_text(f"import os, sys; {code}")
    monkeypatch.syspath_prepend(folder)


def test_khmer_names_arrive_whatever_the_machines_language_is(write_config: WriteConfig, in_tmp: Path) -> None:
    config = write_config({"ខ្មែរ": {}, "ពីរ": {}})
    command = [sys.executable, "-m", "tuner", "run", "--config", str(config), "--workers", "2"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, env=environment)
    told = done.stderr.decode("latin-1")
    assert done.returncode == 0, told
    assert len(re.findall(r" 2/2  char", told)) == 2


@pytest.mark.slow
def test_workers_that_memory_errors_kill_twice_are_followed_by_one_with_smaller_passes(
    write_config: WriteConfig, make_watcher: MakeWatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each dies in the second epoch as long as it trains whole batches: of SIGABRT, then of SIGSEGV."""
    code = """
import signal
import tuner.training.loop as loop
run_epoch = loop.run_epoch
def deadly(training, *rest):
    if training.config.experiment_name == 'one' and len(training.history) == 1 and training.micro_batch_size is None:
        is_first = not os.path.exists('died')
        open('died', 'w').close()
        os.kill(os.getpid(), signal.SIGABRT if is_first else signal.SIGSEGV)
    return run_epoch(training, *rest)
loop.run_epoch = deadly
"""
    watcher = make_watcher()
    session = opened(write_config({"one": {}, "two": {}}), watcher)
    at_start(tmp_path, monkeypatch, code)
    work(session, TrialFilter(), StopConditions(), workers=2)
    assert [note for note in watcher.notes if "killed by" in note] == [
        f"a worker was killed by signal {number}, possibly out of memory; a new worker replaces it"
        for number in (signal.SIGABRT, signal.SIGSEGV)
    ]
    one, two = latest_records(load_study(OUT)[0])
    assert one.outcome is not None
    assert (one.outcome.why_ended, one.outcome.micro_batch_size) == ("max_epochs", 4)
    assert [attempt.after for attempt in one.attempts] == ["waiting", "memory", "memory"]
    assert two.outcome is not None
    assert two.outcome.micro_batch_size is None


class TestWorkersThatCannotWork:
    def test_their_problem_is_told_once(self, write_config: WriteConfig, make_watcher: MakeWatcher) -> None:
        watcher = make_watcher()
        session = opened(write_config({"one": {}, "two": {}}), watcher)
        (OUT / "study.db").rename("elsewhere.db")
        with pytest.raises(ConfigurationError, match=r"study\.db: there is no study database") as caught:
            work(session, TrialFilter(), StopConditions(), workers=2)
        assert len(caught.value.problems) == 1
        assert watcher.notes == [f"a worker exited: {caught.value}"] * 2
        assert watcher.started == []

    @pytest.mark.parametrize(
        ("stderr_text", "told"),
        [(b"no room\nin the ark\n", "in the ark"), (b"", "a worker process exited with code 3")],
    )
    def test_a_process_that_does_not_get_as_far_as_ours_is_an_error_of_the_command(
        self,
        stderr_text: bytes,
        told: str,
        write_config: WriteConfig,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        config = str(write_config({"one": {}, "two": {}}))
        at_start(tmp_path, monkeypatch, f"os.write(2, {stderr_text!r}); os._exit(3)")
        assert main(["run", "--config", config, "--workers", "2", "--results-file", "r.json"]) == 1
        lines = capfd.readouterr().err.splitlines()
        assert lines.count(f"a worker exited: {told}") == 2
        assert f"error: {told}" in lines
        assert "Traceback" not in "".join(lines)
        assert {row.state for row in rows().values()} == {RowState.WAITING}

    def test_their_traceback_is_shown_when_asked_for(
        self,
        write_config: WriteConfig,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        at_start(tmp_path, monkeypatch, "sys.modules['torch'] = None")
        argv = ["run", "--config", str(write_config({"one": {}, "two": {}})), "--workers", "2", "--debug"]
        assert main([*argv, "--results-file", "r.json"]) == 1
        told = capfd.readouterr().err
        assert "a worker exited: unexpected ModuleNotFoundError: import of torch halted" in told
        assert "in a worker process:\nTraceback (most recent call last):" in told
        assert "worker_main.py" in told

    def test_what_one_of_them_could_not_do_is_told_if_nobody_else_has_done_it(
        self, write_config: WriteConfig, make_watcher: MakeWatcher
    ) -> None:
        session = opened(write_config({"one": {}, "two": {}}), make_watcher())
        supervisor = _Supervisor(session, TrialFilter(), StopConditions(), 2, StatusPoller(session, every_s=1.0))
        # One has ended well, and another one for want of room.
        supervisor._succeeded, supervisor._problems = True, ["no space left"]
        with pytest.raises(ConfigurationError, match="no space left"):
            supervisor.watch()
        work(session, TrialFilter(), StopConditions())
        supervisor.watch()

    def test_processes_that_are_killed_at_once_are_not_begun_for_ever(
        self, write_config: WriteConfig, make_watcher: MakeWatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watcher = make_watcher()
        session = opened(write_config({"one": {}, "two": {}}), watcher)
        at_start(tmp_path, monkeypatch, "os.kill(os.getpid(), 9)")
        with pytest.raises(ConfigurationError, match=r"killed \(signal 9\) before they started a trial"):
            work(session, TrialFilter(), StopConditions(), workers=2)
        assert watcher.notes.count("a worker was killed by signal 9; a new worker replaces it") == 6


@pytest.mark.slow
def test_workers_leave_their_trials_when_the_time_is_up(write_config: WriteConfig, make_watcher: MakeWatcher) -> None:
    endless = {"training": {"num_epochs": 100_000}, "early_stopping": {"patience": 100_000}}
    watcher = make_watcher()
    session = opened(write_config({"one": endless, "two": endless}), watcher)
    work(session, TrialFilter(), StopConditions(deadline=time.monotonic() + 20), workers=2)
    assert watcher.notes == ["one, two: still pending, because the time limit was reached"]
    assert {row.state for row in rows().values()} == {RowState.INTERRUPTED}
    assert all(row.epochs > 0 for row in rows().values())
