from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from search_spaces import ConfigurationError
from search_spaces.files.file_locks import _locked, holder_pid, read_note, try_lock, wait_for_lock

Child = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases" / "0001.lock"


def child_gets(child: Child, path: Path) -> str:
    process = child("lock", path)
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_another_process_cannot_lock_what_is_held(path: Path, child: Child) -> None:
    lock = try_lock(path)
    assert lock is not None
    assert child_gets(child, path) == "busy"
    lock.release()
    assert child_gets(child, path) == "held"
    assert try_lock(path) is None


def test_a_second_lock_in_this_process_is_refused_too(path: Path) -> None:
    first = try_lock(path)
    assert first is not None
    assert try_lock(path) is None
    first.release()
    first.release()
    second = try_lock(path)
    assert second is not None
    second.release()


def test_looking_at_an_own_lock_does_not_free_it(path: Path, child: Child) -> None:
    lock = try_lock(path)
    assert lock is not None
    assert holder_pid(path) == os.getpid()
    assert try_lock(path) is None
    assert child_gets(child, path) == "busy"
    lock.release()
    assert holder_pid(path) is None


def test_a_lock_outlasts_a_stop_and_ends_with_the_process(path: Path, child: Child) -> None:
    process = child("lock", path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGSTOP)
    assert try_lock(path) is None
    assert holder_pid(path) == process.pid
    process.kill()
    process.wait()
    assert holder_pid(path) is None
    lock = try_lock(path)
    assert lock is not None
    lock.release()


def test_looking_creates_nothing(path: Path) -> None:
    assert holder_pid(path) is None
    assert not path.parent.exists()


def test_waiting_ends_with_the_holder_s_name(path: Path, child: Child) -> None:
    process = child("lock", path)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(ConfigurationError, match=rf"process {process.pid} has held this lock for 0\.1 s.*CONT"):
        wait_for_lock(path, timeout_s=0.1)


def test_a_waiting_process_logs_the_holder(
    path: Path, child: Child, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("search_spaces.files.file_locks._POLL_S", 0.0001)
    process = child("lock", path)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(ConfigurationError):
        wait_for_lock(path, timeout_s=1.0)
    assert caplog.messages == [f"waiting for process {process.pid}, which holds the lock {path}"]


def test_waiting_continues_while_the_holder_works(path: Path, child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    process = child("lock", path)
    assert process.stdout is not None
    process.stdout.readline()
    polls = []

    def touch_or_end(seconds: float) -> None:
        polls.append(seconds)
        os.utime(path)  # as the holder does while it works
        if len(polls) == 20:
            process.kill()
            process.wait()
        time.sleep(0.02)

    with monkeypatch.context() as patched:
        patched.setattr("search_spaces.files.file_locks.time", Mock(wraps=time, sleep=touch_or_end))
        wait_for_lock(path, timeout_s=0.1).release()
    assert len(polls) == 20


@pytest.mark.parametrize("future_s", [0, 10**6])
def test_a_clock_that_was_set_back_does_not_make_it_wait_for_ever(path: Path, child: Child, future_s: int) -> None:
    process = child("lock", path)
    assert process.stdout is not None
    process.stdout.readline()
    os.utime(path, (time.time() + future_s,) * 2)
    with pytest.raises(ConfigurationError, match="has held this lock"):
        wait_for_lock(path, timeout_s=0.1)


def test_a_file_that_its_holder_has_removed_is_no_lock(path: Path) -> None:
    with wait_for_lock(path):
        descriptor = os.open(path, os.O_RDWR)  # of a process that has waited
        path.unlink()
    try:
        assert not _locked(descriptor, path)
    finally:
        os.close(descriptor)
    with wait_for_lock(path) as again:
        assert path.exists()
        assert again.note == ""


def test_a_pipe_in_place_of_a_lock_is_an_error(path: Path) -> None:
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is not a regular file"):
        wait_for_lock(path)
    with pytest.raises(OSError, match="it is not a regular file"):
        holder_pid(path)
    with pytest.raises(OSError, match="it is not a regular file"):
        read_note(path)


def test_waiting_threads_take_turns(path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with wait_for_lock(path):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert holder_pid(path) is None


def test_a_fork_neither_holds_nor_frees_its_parent_s_lock(path: Path) -> None:
    lock = try_lock(path)
    assert lock is not None
    pid = os.fork()
    if pid == 0:
        got = try_lock(path)
        os._exit(0 if got is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert holder_pid(path) == os.getpid()
    lock.release()


def test_a_note_survives_its_writer_and_the_lock_stays_while_it_is_used(path: Path, child: Child) -> None:
    process = child("lock", path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    lock = try_lock(path)
    assert lock is not None
    assert lock.note == f"note of {process.pid}"
    lock.write_note("short")
    assert lock.note == "short"
    assert child_gets(child, path) == "busy"
    assert lock.note == "short"
    lock.release()
    again = try_lock(path)
    assert again is not None
    assert again.note == "short"
    again.release()


def test_another_note_finds_room_where_there_is_none_any_more(disk: Path, fill: Callable[[Path, int], Path]) -> None:
    with wait_for_lock(disk / "lock") as lock:
        lock.write_note("worker")
        fill(disk, 0)
        lock.write_note("let go, a longer one")
        assert lock.note == "let go, a longer one"


@pytest.mark.parametrize(("text", "kept"), [("", ""), ("x" * 300, "x" * 200), ("ខ" * 70, "ខ" * 66)])
def test_a_note_is_short(path: Path, text: str, kept: str) -> None:
    with wait_for_lock(path) as lock:
        assert lock.note == ""
        lock.write_note(text)
        assert lock.note.startswith(kept)
        assert len(lock.note) <= len(kept) + 1
