import os
import signal
import threading
import time
from unittest.mock import Mock

import pytest

from search_spaces import ConfigurationError
from search_spaces.files.file_locks import _locked, holder_pid, read_note, try_lock, wait_for_lock


@pytest.fixture
def path(tmp_path):
    return tmp_path / "leases" / "0001.lock"


def child_result(child, path):
    process = child("lock", path)
    return process.stdout.readline().strip()


def test_another_process_cannot_acquire_a_held_lock(path, child):
    lock = try_lock(path)
    assert child_result(child, path) == "busy"
    lock.release()
    assert child_result(child, path) == "held"
    assert try_lock(path) is None


def test_same_process_cannot_acquire_a_held_lock_again(path):
    first = try_lock(path)
    assert try_lock(path) is None
    first.release()
    first.release()
    second = try_lock(path)
    second.release()


def test_probing_a_lock_of_this_process_does_not_release_it(path, child):
    lock = try_lock(path)
    assert holder_pid(path) == os.getpid()
    assert try_lock(path) is None
    assert child_result(child, path) == "busy"
    lock.release()
    assert holder_pid(path) is None


def test_stopped_process_keeps_its_lock_and_killed_process_loses_it(path, child):
    process = child("lock", path)
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGSTOP)
    assert try_lock(path) is None
    assert holder_pid(path) == process.pid
    process.kill()
    process.wait()
    assert holder_pid(path) is None
    lock = try_lock(path)
    lock.release()


def test_probing_a_missing_lock_file_creates_nothing(path):
    assert holder_pid(path) is None
    assert not path.parent.exists()


def test_timeout_message_names_the_holder(path, child):
    process = child("lock", path)
    process.stdout.readline()
    with pytest.raises(ConfigurationError, match=rf"process {process.pid} has held this lock for 0\.1 s.*CONT"):
        wait_for_lock(path, timeout_s=0.1)


def test_waiting_process_logs_the_holder(path, child, monkeypatch, caplog):
    monkeypatch.setattr("search_spaces.files.file_locks._POLL_S", 0.0001)
    process = child("lock", path)
    process.stdout.readline()
    with pytest.raises(ConfigurationError):
        wait_for_lock(path, timeout_s=1.0)
    assert caplog.messages == [f"waiting for process {process.pid}, which holds the lock {path}"]


def test_waiting_continues_while_the_holder_touches_the_file(path, child, monkeypatch):
    process = child("lock", path)
    process.stdout.readline()
    polls = []

    def touch_or_end(seconds):
        polls.append(seconds)
        os.utime(path)  # as the holder does during its work
        if len(polls) == 20:
            process.kill()
            process.wait()
        time.sleep(0.02)

    with monkeypatch.context() as patched:
        patched.setattr("search_spaces.files.file_locks.time", Mock(wraps=time, sleep=touch_or_end))
        wait_for_lock(path, timeout_s=0.1).release()
    assert len(polls) == 20


@pytest.mark.parametrize("future_s", [0, 10**6])
def test_modification_time_in_the_future_does_not_prevent_the_timeout(path, child, future_s):
    process = child("lock", path)
    process.stdout.readline()
    os.utime(path, (time.time() + future_s,) * 2)
    with pytest.raises(ConfigurationError, match="has held this lock"):
        wait_for_lock(path, timeout_s=0.1)


def test_removed_lock_file_cannot_be_locked(path):
    with wait_for_lock(path):
        descriptor = os.open(path, os.O_RDWR)  # as in a waiting process
        path.unlink()
    try:
        assert not _locked(descriptor, path)
    finally:
        os.close(descriptor)
    with wait_for_lock(path) as again:
        assert path.exists()
        assert again.note == ""


def test_pipe_instead_of_a_lock_file_is_an_error(path):
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is not a regular file"):
        wait_for_lock(path)
    with pytest.raises(OSError, match="it is not a regular file"):
        holder_pid(path)
    with pytest.raises(OSError, match="it is not a regular file"):
        read_note(path)


def test_threads_hold_the_lock_one_after_the_other(path):
    inside = []
    held_at_once = []

    def work():
        with wait_for_lock(path):
            inside.append(1)
            held_at_once.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held_at_once == [1] * 8
    assert holder_pid(path) is None


def test_forked_process_neither_holds_nor_releases_its_parents_lock(path):
    lock = try_lock(path)
    pid = os.fork()
    if pid == 0:
        acquired = try_lock(path)
        os._exit(0 if acquired is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert holder_pid(path) == os.getpid()
    lock.release()


def test_note_of_a_killed_process_is_kept_and_using_notes_keeps_the_lock(path, child):
    process = child("lock", path)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    lock = try_lock(path)
    assert lock.note == f"note of {process.pid}"
    lock.write_note("short")
    assert lock.note == "short"
    assert child_result(child, path) == "busy"
    assert lock.note == "short"
    lock.release()
    again = try_lock(path)
    assert again.note == "short"
    again.release()


def test_note_can_be_replaced_on_a_full_disk(disk, fill):
    with wait_for_lock(disk / "lock") as lock:
        lock.write_note("worker")
        fill(disk, 0)
        lock.write_note("released, a longer note")
        assert lock.note == "released, a longer note"


@pytest.mark.parametrize(("text", "kept"), [("", ""), ("x" * 300, "x" * 200), ("ខ" * 70, "ខ" * 66)])
def test_long_note_is_cut(path, text, kept):
    with wait_for_lock(path) as lock:
        assert lock.note == ""
        lock.write_note(text)
        assert lock.note.startswith(kept)
        assert len(lock.note) <= len(kept) + 1
