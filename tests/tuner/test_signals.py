import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import optuna
import psutil
import pytest

from studies import (
    OutputFolder,
    RowState,
    StudyInvariants,
    create_or_join_study,
    default_storage_url,
    load_study,
    open_storage,
    study_status,
)
from studies.trials.claims import claim_next
from tuner.signals import STOP_SIGNALS, StopRequested, raise_if_requested, signal_text, stop_on_signals


@pytest.fixture(autouse=True)
def _default_sighup():
    """Restore the default action of SIGHUP, which may be ignored in the environment of the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_unwinds_the_block_and_handlers_are_restored(signum, code):
    before = [signal.getsignal(number) for number in STOP_SIGNALS]

    def wait_for_the_signal():
        with stop_on_signals():
            os.kill(os.getpid(), signum)
            time.sleep(10)

    with pytest.raises(StopRequested) as stop:
        wait_for_the_signal()
    assert stop.value.exit_code == code
    assert isinstance(stop.value, KeyboardInterrupt)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    raise_if_requested()  # the stop is finished, so this raises nothing


@pytest.mark.parametrize(("signum", "text"), [(9, "SIGKILL (signal 9)"), (40, "signal 40")])
def test_signal_text_names_known_signals(signum, text):
    assert signal_text(signum) == text


def test_swallowed_stop_is_raised_again():
    def swallow_the_stop():
        with stop_on_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            except StopRequested:
                pass  # as in a destructor
            raise_if_requested()

    with pytest.raises(StopRequested):
        swallow_the_stop()


def test_stop_swallowed_by_a_destructor_is_raised_again_without_a_traceback(capfd):
    class SignalInDestructor:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    def delete_object(seconds):
        with stop_on_signals():
            SignalInDestructor()
            time.sleep(seconds)

    for seconds in (10.0, 0.0):  # the block continues; the block ends before the stop is raised again
        with pytest.raises(StopRequested):
            delete_object(seconds)
    assert capfd.readouterr() == ("", "")
    raise_if_requested()


def test_ignored_sighup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_block_in_another_thread_has_no_effect():
    seen = []

    def work():
        with stop_on_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_second_signal_exits_the_process_at_once():
    code = """
import time
from tuner.signals import stop_on_signals
with stop_on_signals():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("unwinding", flush=True)
        time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in ("ready\n", "unwinding\n"):
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143


@pytest.fixture
def locked_study(tmp_path):
    """Return the output folder of a study whose database this process has locked."""
    folder = tmp_path / "training_output"
    invariants = StudyInvariants(
        "val_char_accuracy",
        "max",
        0,
        {"fingerprint": "f00d", "train_split": "train", "val_split": "val", "metadata_path": "/data/metadata.yaml"},
        {},
        {},
    )
    storage = open_storage(default_storage_url(folder))
    create_or_join_study(storage, "khmer-ocr", OutputFolder(folder), invariants)
    storage.engine.dispose()
    with closing(sqlite3.connect(folder / "study.db", isolation_level=None)) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        yield folder


def wait_until_locked_out(process, folder):
    """Return when a process waits for the lock of a study's database."""
    while str(folder / "study.db") not in [file.path for file in psutil.Process(process.pid).open_files()]:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)


@pytest.mark.parametrize(("signals", "seconds"), [(1, 10), (2, 5)])
def test_process_that_waits_for_a_lock_can_be_stopped(signals, seconds, locked_study):
    command = [sys.executable, "-m", "tuner", "status", "--output-dir", str(locked_study)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until_locked_out(process, locked_study)
            sent = time.monotonic()
            for _ in range(signals):
                assert process.poll() is None
                process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            out, err = process.communicate(timeout=20)
            assert time.monotonic() - sent < seconds
        finally:
            process.kill()
    line = "stopped by SIGINT during a call that did not return; finished work is kept\n"
    assert (process.returncode, out, err) == (130, "", line if signals == 1 else "")


STOPPED_WORKER = """
import os, signal, sqlite3, sys, threading
from pathlib import Path
import tuner.session.trial_selection
from search_spaces import FloatRange, Parameter, SearchSpace, TrainingConfig
from studies import OutputFolder, StudyInvariants, create_or_join_study, default_storage_url, enqueue_presets
from studies import open_storage
from studies.trials.claims import claim_next
from tuner import signals
signals._SECONDS_TO_HANDLE = 0.3
folder = OutputFolder(Path(sys.argv[1]))
names = ("fingerprint", "train_split", "val_split", "metadata_path")
invariants = StudyInvariants("val_char_accuracy", "max", 0, dict.fromkeys(names, "any"), {}, {})
study = create_or_join_study(open_storage(default_storage_url(folder.path)), "khmer-ocr", folder, invariants)
space = SearchSpace((Parameter("learning_rate", FloatRange(1e-4, 1e-1)),))
enqueue_presets(study, folder, {"one": TrainingConfig(experiment_name="one")}, space)
claim = claim_next(study, folder)
locker = sqlite3.connect(folder.path / "study.db", isolation_level=None)
locker.execute("BEGIN EXCLUSIVE")
with signals.stop_on_signals():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    sqlite3.connect(folder.path / "study.db", timeout=60).execute("BEGIN IMMEDIATE")
"""


def test_worker_stopped_during_a_long_call_is_not_recorded_as_crashed(tmp_path):
    done = subprocess.run([sys.executable, "-c", STOPPED_WORKER, tmp_path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (130, False)
    study = optuna.load_study(study_name="khmer-ocr", storage=open_storage(default_storage_url(tmp_path)))
    claim = claim_next(study, OutputFolder(tmp_path))
    assert claim is not None
    assert [attempt.after for attempt in claim.record.attempts] == ["waiting", "stop"]


def run_script(code):
    """Run a script in which a signal must be handled within 0.3 s; return its output."""
    code = f"from tuner import signals\nsignals._SECONDS_TO_HANDLE = 0.3\n{code}"
    done = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_unwinding_and_the_time_after_a_block_are_not_limited():
    code = """
import os, time
try:
    with signals.stop_on_signals():
        try:
            os.kill(os.getpid(), 15)
            time.sleep(60)
        finally:
            time.sleep(1)
            print("unwound")
except signals.StopRequested as stop:
    print(stop.exit_code)
try:
    with signals.stop_on_signals():
        os.kill(os.getpid(), 15)
except signals.StopRequested:
    with signals.stop_on_signals():
        time.sleep(1)
print("still running")
"""
    assert run_script(code) == "unwound\n143\nstill running\n"


def test_parent_and_forked_child_handle_only_their_own_signals():
    code = """
import multiprocessing, os, time
def files():
    return len(os.listdir("/proc/self/fd"))
before = files()
answers, child_end = os.pipe()
with signals.stop_on_signals():
    child = os.fork()
    if child == 0:
        try:
            os.write(child_end, bytes([files() - before]))
            time.sleep(60)
        except signals.StopRequested:
            os.write(child_end, b"!")
            time.sleep(60)
    print(os.read(answers, 1)[0] - 2, "files more")
    for answer in (b"!", b""):
        os.kill(child, 2)
        if answer:
            print(os.read(answers, 1) == answer)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join(10)
    print(process.exitcode)
    unwinding = os.fork()
    if unwinding == 0:
        signals.raise_if_requested()
    else:
        os.waitpid(unwinding, 0)
        time.sleep(1)
        try:
            os.kill(os.getpid(), 15)
            time.sleep(60)
        except signals.StopRequested:
            print("parent stopped")
"""
    lines = ["0 files more", "True", "130", "0", "parent stopped"]
    assert run_script(code).splitlines() == lines


def test_blocks_leave_no_files_or_threads():
    def resources():
        return len(os.listdir("/proc/self/fd")), len(threading.enumerate())

    before = resources()
    with closing(socket.socket()) as earlier:
        earlier.setblocking(False)
        wakeup_fd = signal.set_wakeup_fd(earlier.fileno())
        for _ in range(100):
            with stop_on_signals(), stop_on_signals():
                assert resources() > before
        assert signal.set_wakeup_fd(wakeup_fd) == earlier.fileno()
    assert resources() == before


def test_signal_at_the_start_or_end_of_a_block_leaves_no_files_or_threads():
    code = """
import os, random, signal, threading, time
def wait_and_stop():
    time.sleep(0.001 * random.random())
    os.kill(os.getpid(), signal.SIGINT)
files = len(os.listdir("/proc/self/fd"))
for _ in range(300):
    thread = threading.Thread(target=wait_and_stop)
    try:
        thread.start()
        while True:
            with signals.stop_on_signals():
                pass
    except KeyboardInterrupt:
        thread.join()
    assert threading.active_count() == 1
    assert len(os.listdir("/proc/self/fd")) == files
    assert signal.set_wakeup_fd(-1) == -1
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
"""
    run_script(code)


def test_stopped_run_can_be_resumed(tmp_path, write_config):
    endless = {"training": {"batch_size": 1, "num_epochs": 100_000}, "early_stopping": {"patience": 100_000}}
    command = ["run", "--config", str(write_config({"endless": endless})), "--output-dir", "out"]
    epochs = 0
    for signum, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143)]:
        with subprocess.Popen(
            [sys.executable, "-m", "tuner", *command], stderr=subprocess.PIPE, text=True, cwd=tmp_path
        ) as process:
            assert process.stderr is not None
            lines = [next(process.stderr)]
            while not lines[-1].startswith("  ") or "resumes at epoch" in lines[-1]:
                lines.append(next(process.stderr))
            time.sleep(0.05)  # into the middle of the next epoch
            sent = time.monotonic()
            process.send_signal(signum)
            rest = process.stderr.read()
            assert process.wait() == code
            assert time.monotonic() - sent < 10
        assert rest.endswith("stopped; run the same command again to resume\n")
        [written] = re.findall("the results so far are in (.*)", rest)
        assert (tmp_path / written).is_file()
        assert "Traceback" not in rest
        assert (", resumed)" in "".join(lines)) == (epochs > 0)
        [row] = study_status(*load_study(tmp_path / "out")).rows
        assert row.state is RowState.INTERRUPTED
        assert row.epochs > epochs
        epochs = row.epochs
    assert list(tmp_path.glob("hyperparameter_tuning_results_*.json"))


def test_swallowed_stop_leaves_no_alarm():
    code = """
import os, signal, time
class Swallows:
    def __del__(self):
        os.kill(os.getpid(), 2)
        sum(range(10_000))
try:
    with signals.stop_on_signals():
        Swallows()
except signals.StopRequested as stop:
    print(stop.exit_code)
signal.signal(signal.SIGALRM, signal.SIG_DFL)
time.sleep(0.3)
print("regular exit")
"""
    assert run_script(code) == "130\nregular exit\n"
