"""Locks on files that are held exactly as long as their process runs.

A stopped process keeps its POSIX record locks (`fcntl.lockf`), the kernel frees those of a process that exits or is
killed, and forked loader workers do not inherit them. They belong to the process: closing any descriptor of the file
frees the lock, and a process never blocks itself. So this module registers the locks of this process by path, opens
each file at most once, and nothing else opens a lock file.
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

# struct flock, whose pid and type are at other places on macOS.
_FLOCK_LAYOUT = "@qqihh" if sys.platform == "darwin" else "@hhqqi"

_held: dict[str, FileLock] = {}
# If one thread closed a file that it probed while another thread locks it, the lock would be lost.
_registry_lock = threading.Lock()


class FileLock:
    """A lock that this process holds on a file; made by `try_lock` and `wait_for_lock`.

    Attributes:
        path: The lock file. Only the process that holds it may remove it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @property
    def note(self) -> str:
        """The last note that any process wrote; "" if there is none."""
        assert self._descriptor is not None, "the lock was released"
        return os.pread(self._descriptor, _MAX_NOTE_BYTES, 0).decode("utf-8", "replace").rstrip()

    def write_note(self, text: str) -> None:
        """Write a short note for the process that locks the file next, if the disk allows it."""
        assert self._descriptor is not None, "the lock was released"
        with contextlib.suppress(OSError):
            # Notes have the same length, so that a new one replaces an old one even if the disk is full.
            os.pwrite(self._descriptor, text.encode()[:_MAX_NOTE_BYTES].ljust(_MAX_NOTE_BYTES), 0)

    def touch(self) -> None:
        """Set the file's time to now, if the disk allows it; the note stays as it is."""
        assert self._descriptor is not None, "the lock was released"
        with contextlib.suppress(OSError):
            os.utime(self._descriptor)

    def release(self) -> None:
        """Free the lock; a second call does nothing."""
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
    """Lock a file, and create it and its folder if they are missing.

    Returns:
        The lock; None if another process, or another part of this one, holds it.

    Raises:
        ConfigurationError: If the file system has no file locks.
        OSError: If the file cannot be created or opened.
    """
    with _registry_lock:
        key = _key(path)
        if key in _held:
            return None
        path.parent.mkdir(exist_ok=True)  # without parents: a moved output folder must stay away
        descriptor = regular_file(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            if _locked(descriptor, path):
                _held[key] = FileLock(path, descriptor)
        finally:
            if key not in _held:
                os.close(descriptor)
        return _held.get(key)


def wait_for_lock(path: Path, *, timeout_s: float = 300.0) -> FileLock:
    """Lock a file like `try_lock`, but wait until the lock is free, and name its holder in the log.

    Args:
        path: The lock file.
        timeout_s: Maximum seconds to wait after the holder last touched the file.

    Raises:
        ConfigurationError: If the lock is not free in time (the holder is named), or there are no file locks.
        OSError: If the file cannot be created or opened.
    """
    deadline, polls = time.monotonic() + timeout_s, 0
    while (lock := try_lock(path)) is None:
        polls += 1
        if polls == 150:  # after about 3 s
            logging.getLogger(__name__).warning("waiting for %s, which holds the lock %s", _holder_text(path), path)
        if time.monotonic() >= deadline and not 0 < read_note(path)[1] < timeout_s:
            raise ConfigurationError(
                f"{path}: {_holder_text(path)} has held this lock for {timeout_s:g} s; "
                "let it continue (a stopped process: kill -CONT) or end it, then repeat the command"
            )
        time.sleep(_POLL_S)
    return lock


def holder_pid(path: Path) -> int | None:
    """Return the process id of a lock's holder, without taking the lock or writing anything.

    Returns:
        The process id, 0 if the holder is on another machine and its id unknown; None if the lock is free.
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
    """Return the last note in a lock file and the seconds since its last update; "" if there is none.

    A file that this process locks has none: closing it would free the lock.
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
        # The last holder may have removed the file; other processes then lock a new file of this name.
        return os.fstat(descriptor).st_nlink > 0
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
            raise ConfigurationError(
                f"{path.parent}: this file system has no file locks, which keep two workers off one trial; "
                "choose an --output-dir on another disk"
            ) from error
        raise


def _probe(descriptor: int) -> int | None:
    """Return the process whose lock on the file excludes one on all of it, 0 if unknown; None if there is none."""
    if sys.platform == "darwin":
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK_LAYOUT, 0, 0, 0, fcntl.F_WRLCK, 0))
        _, _, pid, kind, _ = struct.unpack(_FLOCK_LAYOUT, answer)
    else:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK_LAYOUT, fcntl.F_WRLCK, 0, 0, 0, 0))
        kind, _, _, _, pid = struct.unpack(_FLOCK_LAYOUT, answer)
    return None if kind == fcntl.F_UNLCK else max(0, int(pid))


def _holder_text(path: Path) -> str:
    pid = holder_pid(path)
    return f"process {pid}" if pid else "another process"


def _forget_after_fork() -> None:
    """Forget the locks of the parent process, and the lock of the registry, whose thread the child does not have."""
    global _registry_lock
    _held.clear()
    _registry_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
