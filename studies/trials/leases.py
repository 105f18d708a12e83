"""Leases: which worker trains which trial.

With SQLite a lease is a lock on a file in the output folder: the kernel frees it when its process exits, and a running
process never loses it. With PostgreSQL it is an advisory lock, see `studies.locks.advisory_locks`, which a running
process loses when the server restarts or the network fails. So such a lease expires only after it has been free for
some seconds, in which its process acquires it again, and the fence of `studies.storage.postgresql` keeps a process
whose lease has expired from writing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search_spaces.errors import ConfigurationError
from search_spaces.files.file_locks import FileLock, holder_pid, read_note, try_lock
from studies.storage.open import BUSY_TIMEOUT_S, DATABASE_ERRORS
from studies.storage.optuna_private import rdb_storage, trial_id_of
from studies.storage.output_folder import OutputFolder
from studies.storage.postgresql import LeaseLost, PostgresStorage
from studies.trials.record import TrialPhase, TrialRecord

# A lease that has been free for so long has expired: its process checks every second whether it still has it.
LEASE_GRACE_S = 3.0
# After a restart of the server all processes have to reconnect.
LEASE_GRACE_AFTER_RESTART_S = 15.0
# A lease on a file that a process on another machine has not touched for so long has expired.
OTHER_MACHINE_GRACE_S = 600.0
# How often a process that trains touches it at most.
_SECONDS_BETWEEN_TOUCHES = 60.0
_POLL_S = 0.25
_RELEASED = "released"


class Lease(Protocol):
    """A lease that this process holds."""

    def was_released(self, record: TrialRecord) -> bool:
        """Return whether the process before this one released the trial, and did not crash."""

    def is_expired(self, record: TrialRecord) -> bool:
        """Return whether the lease of a running trial, which was just found free, has certainly expired."""

    def expect(self, record: TrialRecord) -> None:
        """Prepare for the attempt that is about to be stored, the record's last one."""

    def hold(self, record: TrialRecord) -> None:
        """Mark the lease as that of the record's last attempt, which is stored now."""

    def check(self) -> None:
        """Make sure that no other worker has taken over.

        Raises:
            LeaseLost: Another worker has.
        """

    def touch(self) -> None:
        """Show other machines that this process trains the trial, at most once a minute; nothing else is written."""

    def release(self) -> None:
        """Free the lease, and record that its process did not crash."""

    def discard(self) -> None:
        """Free the lease as if it had never been acquired; a second call does nothing."""


class Leases(Protocol):
    """The leases of a study's trials."""

    def try_acquire(self, record: TrialRecord) -> Lease | None:
        """Acquire a trial's lease; return None if another process, or another part of this one, holds it."""

    def holders(self, records: Iterable[TrialRecord]) -> Mapping[int, int | None]:
        """Return the process that holds each lease, by trial number; nothing is acquired or written.

        Returns:
            Process ids: None for a free lease, 0 for a process on another machine.
        """


def leases_of(study: optuna.Study, folder: OutputFolder) -> Leases:
    """Return the leases of a study's trials."""
    storage = rdb_storage(study)
    return _AdvisoryLeases(study, storage) if isinstance(storage, PostgresStorage) else _FileLeases(folder)


def study_lock(storage: RDBStorage, name: str, folder: OutputFolder) -> AbstractContextManager[object]:
    """Return the lock for changes to a study's attributes and to its list of trials, on any machine.

    Raises:
        ConfigurationError: Another process does not release it in time.
    """
    if isinstance(storage, PostgresStorage):
        return storage.locks.waiting(storage.lock_key("study", name), f"study {name!r}", timeout_s=BUSY_TIMEOUT_S)
    return folder.lock()


def require_single_machine_for_sqlite(study: optuna.Study, folder: OutputFolder) -> None:
    """Refuse a study in SQLite that a process on another machine trains, whose file locks may be invisible here.

    Raises:
        ConfigurationError: Another machine holds the lease of a running trial.
    """
    storage = rdb_storage(study)
    if isinstance(storage, PostgresStorage):
        return
    study_id = storage.get_study_id_from_name(study.study_name)
    for trial in storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,)):
        path = folder.lease_path(trial.number)
        note, age = read_note(path)
        worker, _, kernel = note.partition(" ")
        host, _, pid = worker.rpartition(":")
        # The locks of one kernel are visible in all of its containers, and whatever its host name is now.
        if host in ("", socket.gethostname()) or kernel == _kernel_id():
            continue
        if holder_pid(path) is not None or age < OTHER_MACHINE_GRACE_S:
            raise ConfigurationError(
                f"study {study.study_name!r}: process {pid} on the machine {host} trains trial {trial.number} (last "
                f"update {age:.0f} s ago), and a study in SQLite is for one machine at a time; stop that "
                "process, or keep the study in PostgreSQL (--storage); if it has exited already, repeat the command "
                f"in {max(0.0, OTHER_MACHINE_GRACE_S - age):.0f} s"
            )


def lock_of(study: optuna.Study, folder: OutputFolder) -> AbstractContextManager[object]:
    """Return the `study_lock` of a study."""
    return study_lock(rdb_storage(study), study.study_name, folder)


@contextlib.contextmanager
def without_retries(study: optuna.Study) -> Iterator[None]:
    """Do not wait for a server that cannot be reached, in a ``with`` statement."""
    storage = rdb_storage(study)
    with storage.impatient() if isinstance(storage, PostgresStorage) else contextlib.nullcontext():
        yield


def note_stop() -> None:
    """Record in this process's leases on files that it did not crash; any thread may call this.

    On a server the record would need a connection, which may be what the process waits for.
    """
    for lease in list(_ours):
        lease.note_stop()


class _FileLease:
    def __init__(self, lock: FileLock) -> None:
        self._lock = lock
        self._next_touch = 0.0

    def was_released(self, record: TrialRecord) -> bool:
        return self._lock.note == _RELEASED

    def is_expired(self, record: TrialRecord) -> bool:
        return True

    def expect(self, record: TrialRecord) -> None:
        """Nothing to prepare: the file names no process before `hold`."""

    def hold(self, record: TrialRecord) -> None:
        self._lock.write_note(f"{record.attempts[-1].worker} {_kernel_id()}")
        _ours.add(self)

    def check(self) -> None:
        """Nothing to check: the kernel never takes a file lock away."""

    def touch(self) -> None:
        if time.monotonic() >= self._next_touch:
            self._next_touch = time.monotonic() + _SECONDS_BETWEEN_TOUCHES
            self._lock.touch()

    def release(self) -> None:
        if self in _ours:  # else the note is that of the process before, which may have crashed
            self.note_stop()
        self.discard()

    def discard(self) -> None:
        _ours.discard(self)
        self._lock.release()

    def note_stop(self) -> None:
        self._lock.write_note(_RELEASED)


# Leases on files that this process holds.
_ours: set[_FileLease] = set()


class _FileLeases:
    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder

    def try_acquire(self, record: TrialRecord) -> _FileLease | None:
        self._folder.check_in_place()
        lock = try_lock(self._folder.lease_path(record.number))
        return None if lock is None else _FileLease(lock)

    def holders(self, records: Iterable[TrialRecord]) -> Mapping[int, int | None]:
        paths = {record.number: self._folder.lease_path(record.number) for record in records}
        # Most waiting trials have no file yet, which is quicker to see than that it is not locked.
        return {number: holder_pid(path) if path.is_file() else None for number, path in paths.items()}


class _AdvisoryLease:
    def __init__(self, storage: PostgresStorage, trial_id: int) -> None:
        self._storage = storage
        self._trial_id = trial_id
        self._attempts = 0

    def was_released(self, record: TrialRecord) -> bool:
        return self._storage.get_trial_system_attrs(self._trial_id).get(_RELEASED) == len(record.attempts)

    def is_expired(self, record: TrialRecord) -> bool:
        # Only waiting shows that; `try_acquire` does, the next time.
        return self.was_released(record)

    def expect(self, record: TrialRecord) -> None:
        # Before they are stored: if the connection is lost meanwhile, it is unknown which attempts the database has.
        self._attempts = len(record.attempts)
        self._storage.fence(self._trial_id, record.attempts_as_stored)

    def hold(self, record: TrialRecord) -> None:
        """`expect` has set the fence already."""

    def check(self) -> None:
        self._storage.check_fence(self._trial_id)

    def touch(self) -> None:
        """Nothing to show: other machines see the lock in the database."""

    def release(self) -> None:
        if self._attempts:
            self._storage.unrecorded_releases[self._trial_id] = self._attempts
            # Until it can be recorded it looks like a crash.
            with contextlib.suppress(*DATABASE_ERRORS), self._storage.impatient():
                record_releases(self._storage)
        self._storage.locks.free(self._storage.lock_key("trial", self._trial_id))

    def discard(self) -> None:
        self._storage.unfence(self._trial_id)
        self._storage.locks.free(self._storage.lock_key("trial", self._trial_id))


def record_releases(storage: PostgresStorage) -> None:
    """Record which trials this process has released without crashing.

    Raises:
        DATABASE_ERRORS: The database cannot be reached; another call continues.
    """
    for trial_id, attempts in list(storage.unrecorded_releases.items()):
        # With the number of attempts: it says nothing once another process has started one more. A finished trial takes
        # no attributes.
        with contextlib.suppress(UpdateFinishedTrialError, LeaseLost):
            storage.set_trial_system_attr(trial_id, _RELEASED, attempts)
        storage.unfence(trial_id)
        del storage.unrecorded_releases[trial_id]


class _AdvisoryLeases:
    def __init__(self, study: optuna.Study, storage: PostgresStorage) -> None:
        self._study = study
        self._storage = storage
        self._held: set[int] | None = None

    def try_acquire(self, record: TrialRecord) -> _AdvisoryLease | None:
        record_releases(self._storage)
        trial_id = trial_id_of(self._study, record.number)
        if record.phase is TrialPhase.RUNNING and not self._is_expired(record, trial_id):
            return None
        if not self._storage.locks.try_acquire(self._storage.lock_key("trial", trial_id)):
            return None
        return _AdvisoryLease(self._storage, trial_id)

    def holders(self, records: Iterable[TrialRecord]) -> Mapping[int, int | None]:
        held = self._storage.held_numbers("trial")
        return {
            record.number: local_process_id(record) if trial_id_of(self._study, record.number) in held else None
            for record in records
        }

    def _is_expired(self, record: TrialRecord, trial_id: int) -> bool:
        """Return whether the lease of a running trial has been free for long enough."""
        # Read once for all running trials; leases that are not held are checked again below.
        if self._held is None:
            self._held = self._storage.held_numbers("trial")
        if trial_id in self._held:
            return False
        if _AdvisoryLease(self._storage, trial_id).was_released(record):
            return True
        wait_s = max(LEASE_GRACE_S, LEASE_GRACE_AFTER_RESTART_S - self._storage.seconds_up())
        enough = time.monotonic() + wait_s
        while trial_id not in self._storage.held_numbers("trial"):
            if self._storage.get_trial(trial_id).state.is_finished():
                return False  # its worker has finished it since it was read
            if time.monotonic() >= enough:
                return True
            time.sleep(_POLL_S)
        return False


def local_process_id(record: TrialRecord) -> int:
    """Return the process of the latest attempt at a trial; 0 if it is on another machine."""
    host, _, pid = record.attempts[-1].worker.rpartition(":") if record.attempts else ("", "", "")
    return int(pid) if host == socket.gethostname() and pid.isdigit() else 0


@functools.cache
def _kernel_id() -> str:
    """Return what tells this machine since its last start from all others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # macOS
        return f"{uuid.getnode():x}"


def this_worker() -> str:
    """Return host and process id of this process, as attempts name it."""
    return f"{socket.gethostname()}:{os.getpid()}"
