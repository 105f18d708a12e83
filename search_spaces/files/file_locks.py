"""File locks that the kernel releases when their process exits.

These are POSIX record locks (`fcntl.lockf`). A stopped process keeps its locks, the kernel releases the locks of a
process that exits or is killed, and forked loader workers do not inherit them. Such locks belong to the process:
closing any descriptor of the file releases the lock, and a process never blocks itself. Therefore this module registers
all locks of this process and opens each lock file at most once. No other code opens a lock file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import struct
import sys
import threading
import time
from pathlib import Path

from search_spaces.errors import ConfigurationError
from search_spaces.files.regular_files import read_bytes, regular_file

_POLL_S = 0.02
_MAX_NOTE_BYTES = 200

# The C structure flock, whose fields have another order on macOS.
_FLOCK_LAYOUT = "@qqihh" if sys.platform == "darwin" else "@hhqqi"

# The locks of this process, keyed by resolved path.
_held: dict[str, FileLock] = {}
# Otherwise, a thread that closes a probed file could release the lock that another thread has just acquired on it.
_registry_lock = threading.Lock()


class FileLock:
    """A lock that this process holds on a file; created by `try_lock` and `wait_for_lock`.

    Attributes:
        path: The lock file. Only the process that holds the lock may remove it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @property
    def note(self) -> str:
        """The note in the file, which any process may have written; "" if the file is empty."""
        assert self._descriptor is not None, "the lock was released"
        return os.pread(self._descriptor, _MAX_NOTE_BYTES, 0).decode("utf-8", "replace").rstrip()

    def write_note(self, text: str) -> None:
        """Write a short note for the next process that locks the file; ignore disk errors."""
        assert self._descriptor is not None, "the lock was released"
        with contextlib.suppress(OSError):
            # All notes have the same length, so that a full disk does not prevent replacing a note.
            os.pwrite(self._descriptor, text.encode()[:_MAX_NOTE_BYTES].ljust(_MAX_NOTE_BYTES), 0)

    def touch(self) -> None:
        """Set the file's modification time to now, without changing the note; ignore disk errors."""
        assert self._descriptor is not None, "the lock was released"
        with contextlib.suppress(OSError):
            os.utime(self._descriptor)

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        with _registry_lock:
            if self._descriptor is None:
                return
            _held.pop(_key(self.path), None)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def try_lock(path: Path) -> FileLock | None:
    """Try to lock a file without waiting; create the file and its folder if they are missing.

    Returns:
        The lock; None if another process, or another `FileLock` of this process, holds the lock.

    Raises:
        ConfigurationError: The file system does not support file locks.
        OSError: The file cannot be created or opened.
    """
    with _registry_lock:
        key = _key(path)
        if key in _held:
            return None
        path.parent.mkdir(exist_ok=True)  # without parents: a moved output folder must not be recreated
        descriptor = regular_file(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            if _locked(descriptor, path):
                _held[key] = FileLock(path, descriptor)
        finally:
            if key not in _held:
                os.close(descriptor)
        return _held.get(key)


def wait_for_lock(path: Path, *, timeout_s: float = 300.0) -> FileLock:
    """Lock a file like `try_lock`, but wait until the lock is free; after 3 s, log which process holds the lock.

    Args:
        path: The lock file.
        timeout_s: Maximum seconds to wait, counted from the last time that the holder touched the file.

    Raises:
        ConfigurationError: The wait times out, or the file system does not support file locks.
        OSError: The file cannot be created or opened.
    """
    deadline, polls = time.monotonic() + timeout_s, 0
    while (lock := try_lock(path)) is None:
        polls += 1
        if polls == 150:  # after about 3 s
            logging.getLogger(__name__).warning("waiting for %s, which holds the lock %s", _holder_text(path), path)
        if time.monotonic() >= deadline and not 0 < read_note(path)[1] < timeout_s:
            raise ConfigurationError(
                f"{path}: {_holder_text(path)} has held this lock for {timeout_s:g} s; "
                "end that process, or let it continue (kill -CONT if it is stopped), then repeat the command"
            )
        time.sleep(_POLL_S)
    return lock


def holder_pid(path: Path) -> int | None:
    """Return the id of the process that holds a lock, without acquiring the lock or writing anything.

    Returns:
        The process id; 0 if the process runs on another machine, so its id is unknown; None if the lock is free.
    """
    with _registry_lock:
        if _key(path) in _held:
            return os.getpid()
        try:
            descriptor = regular_file(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return _probe(descriptor)
        finally:
            os.close(descriptor)


def read_note(path: Path) -> tuple[str, float]:
    """Return the note in a lock file, and the seconds since the last modification of the file.

    The note is "" if the file has none, or if this process holds the lock, because closing the file would release the
    lock. A missing file has the note "" and the time 0.
    """
    with _registry_lock:
        try:
            text = "" if _key(path) in _held else read_bytes(path).decode("utf-8", "replace")
            return text.rstrip(), max(0.0, time.time() - path.stat().st_mtime)
        except FileNotFoundError:
            return "", 0.0


def _key(path: Path) -> str:
    return os.path.realpath(path)


def _locked(descriptor: int, path: Path) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # If the previous holder has removed the file, the lock is useless: other processes lock a new file.
        return os.fstat(descriptor).st_nlink > 0
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
            raise ConfigurationError(
                f"{path.parent}: this file system does not support file locks, without which two workers could train "
                "the same trial; choose an --output-dir on another disk"
            ) from error
        raise


def _probe(descriptor: int) -> int | None:
    """Return the id of the process that has locked the file; 0 if the id is unknown; None if the file is not locked."""
    if sys.platform == "darwin":
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK_LAYOUT, 0, 0, 0, fcntl.F_WRLCK, 0))
        _, _, pid, kind, _ = struct.unpack(_FLOCK_LAYOUT, answer)
    else:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK_LAYOUT, fcntl.F_WRLCK, 0, 0, 0, 0))
        kind, _, _, _, pid = struct.unpack(_FLOCK_LAYOUT, answer)
    return None if kind == fcntl.F_UNLCK else max(0, int(pid))


def _holder_text(path: Path) -> str:
    pid = holder_pid(path)
    return f"process {pid}" if pid else "a process on another machine (process id unknown)"


def _forget_after_fork() -> None:
    """Forget the parent's locks in a forked child.

    The registry lock is replaced, because the thread that may hold it does not exist in the child.
    """
    global _registry_lock
    _held.clear()
    _registry_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
