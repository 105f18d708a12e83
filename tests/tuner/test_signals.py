from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studies import RowState, load_study, study_status
from tuner.signals import STOP_SIGNALS, StopRequested, raise_if_requested, stop_on_signals


@pytest.fixture(autouse=True)
def _not_under_nohup() -> Iterator[None]:
    """Whoever runs the tests may have SIGHUP ignored, and then it stays so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_unwinds_the_block_and_handlers_come_back(signum, code):
    before = [signal.getsignal(number) for number in STOP_SIGNALS]

    def wait_for_the_signal() -> None:
        with stop_on_signals():
            os.kill(os.getpid(), signum)
            time.sleep(10)

    with pytest.raises(StopRequested) as stop:
        wait_for_the_signal()
    assert stop.value.exit_code == code
    assert isinstance(stop.value, KeyboardInterrupt)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    raise_if_requested()  # all over: nothing to raise


def test_a_stop_that_python_swallowed_is_raised_again():
    def swallow_the_stop() -> None:
        with stop_on_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            except StopRequested:
                pass  # as in a destructor
            raise_if_requested()

    with pytest.raises(StopRequested):
        swallow_the_stop()


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_are_left_alone():
    seen: list[object] = []

    def work() -> None:
        with stop_on_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_a_second_signal_ends_the_process_at_once():
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


def test_a_stopped_run_is_resumable(tmp_path: Path, write_config: Callable[..., Path]):
    endless = {"training": {"batch_size": 1, "num_epochs": 100_000}, "early_stopping": {"patience": 100_000}}
    command = ["run", "--config", str(write_config({"endless": endless})), "--output-dir", "out"]
    epochs = 0
    for signum, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143)]:
        with subprocess.Popen(
            [sys.executable, "-m", "tuner", *command], stderr=subprocess.PIPE, text=True, cwd=tmp_path
        ) as process:
            assert process.stderr is not None
            told = [next(process.stderr)]
            while not told[-1].startswith("  ") or "going on" in told[-1]:
                told.append(next(process.stderr))
            time.sleep(0.05)  # into the middle of the next epoch
            sent = time.monotonic()
            process.send_signal(signum)
            rest = process.stderr.read()
            assert process.wait() == code
            assert time.monotonic() - sent < 10
        assert rest.endswith("stopped; the same command goes on where it left\n")
        assert "Traceback" not in rest
        assert ("going on after an interruption" in "".join(told)) == (epochs > 0)
        [row] = study_status(*load_study(tmp_path / "out")).rows
        assert row.state is RowState.INTERRUPTED
        assert row.epochs > epochs
        epochs = row.epochs
    assert list(tmp_path.glob("hyperparameter_tuning_results_*.json"))
