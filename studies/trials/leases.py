"""Leases, which show which worker is training which trial.

With SQLite, a lease is a lock on a file in the output folder. The kernel frees the lock when the process exits, and a
running process never loses it. With PostgreSQL, a lease is an advisory lock (see `studies.locks.advisory_locks`). A
running process loses the lock if the server restarts or the network fails, and then acquires it again. So an advisory
lease expires only after it has been free for some seconds. The fence in `studies.storage.postgresql` rejects writes of
a process whose lease has expired.
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

# An advisory lease expires after it has been free for this time; a process checks every second that it holds its locks.
LEASE_GRACE_S = 3.0
# Longer, because all processes have to reconnect after a server restart.
LEASE_GRACE_AFTER_RESTART_S = 15.0
# A file lease of another machine expires if its process has not touched the file for this time.
OTHER_MACHINE_GRACE_S = 600.0
# A training process touches the file of its lease, as a heartbeat, at most this often.
_SECONDS_BETWEEN_TOUCHES = 60.0
_POLL_S = 0.25
_RELEASED = "released"


class Lease(Protocol):
    """A lease that this process holds."""

    def was_released(self, record: TrialRecord) -> bool:
        """Return whether the trial's previous process released the trial instead of crashing."""

    def is_expired(self, record: TrialRecord) -> bool:
        """Return whether a running trial's lease had certainly expired before this process acquired it."""

    def prepare_attempt(self, record: TrialRecord) -> None:
        """Prepare the lease before the record's last attempt is stored in the database."""

    def confirm_attempt(self, record: TrialRecord) -> None:
        """Assign the lease to the record's last attempt. Call this once the attempt is stored in the database."""

    def check(self) -> None:
        """Check that no other worker has taken over the trial.

        Raises:
            LeaseLost: Another worker has taken over the trial.
        """

    def touch(self) -> None:
        """Refresh the heartbeat of this process for other machines, at most once a minute."""

    def release(self) -> None:
        """Free the lease, and record that this process did not crash."""

    def discard(self) -> None:
        """Free the lease as if it had never been acquired; a second call does nothing."""


class Leases(Protocol):
    """The leases of a study's trials."""

    def try_acquire(self, record: TrialRecord) -> Lease | None:
        """Acquire a trial's lease; return None if any process, this one included, holds it already."""

    def holders(self, records: Iterable[TrialRecord]) -> Mapping[int, int | None]:
        """Find the process that holds each lease, without acquiring or writing anything.

        Returns:
            The process ids, keyed by trial number; None for a free lease, 0 for a process on another machine.
        """


def leases_of(study: optuna.Study, folder: OutputFolder) -> Leases:
    """Return the leases of a study's trials."""
    storage = rdb_storage(study)
    return _AdvisoryLeases(study, storage) if isinstance(storage, PostgresStorage) else _FileLeases(folder)


def study_lock(storage: RDBStorage, name: str, folder: OutputFolder) -> AbstractContextManager[object]:
    """Return a context manager that holds the study lock, which excludes processes on all machines.

    A process holds the study lock while it changes the study's attributes or its list of trials.

    Raises:
        ConfigurationError: Another process does not release the lock in time.
    """
    if isinstance(storage, PostgresStorage):
        return storage.locks.waiting(storage.lock_key("study", name), f"study {name!r}", timeout_s=BUSY_TIMEOUT_S)
    return folder.lock()


def require_single_machine_for_sqlite(study: optuna.Study, folder: OutputFolder) -> None:
    """Check that no other machine is training a study in SQLite, because its file locks may be invisible here.

    Raises:
        ConfigurationError: A process on another machine holds the lease of a running trial.
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
        # Containers on one kernel see each other's locks, even if their host names differ.
        if host in ("", socket.gethostname()) or kernel == _kernel_id():
            continue
        if holder_pid(path) is not None or age < OTHER_MACHINE_GRACE_S:
            raise ConfigurationError(
                f"study {study.study_name!r}: process {pid} on machine {host} is training trial {trial.number} "
                f"(last update {age:.0f} s ago), but only one machine at a time can train a study in SQLite; "
                "stop that process, or use a PostgreSQL storage (--storage); if the process has exited already, "
                f"repeat the command in {max(0.0, OTHER_MACHINE_GRACE_S - age):.0f} s"
            )


def lock_of(study: optuna.Study, folder: OutputFolder) -> AbstractContextManager[object]:
    """Return a context manager that holds the lock of a study; see `study_lock`."""
    return study_lock(rdb_storage(study), study.study_name, folder)


@contextlib.contextmanager
def without_retries(study: optuna.Study) -> Iterator[None]:
    """Disable retries of connections to the database server in the body of a ``with`` statement."""
    storage = rdb_storage(study)
    with storage.without_retries() if isinstance(storage, PostgresStorage) else contextlib.nullcontext():
        yield


def record_stop() -> None:
    """Record in all file leases of this process that the process did not crash; any thread may call this.

    Advisory leases are not changed, because that needs a connection, for which the main thread may be waiting.
    """
    for lease in list(_held_file_leases):
        lease.record_stop()


class _FileLease:
    def __init__(self, lock: FileLock) -> None:
        self._lock = lock
        self._next_touch = 0.0

    def was_released(self, record: TrialRecord) -> bool:
        return self._lock.note == _RELEASED

    def is_expired(self, record: TrialRecord) -> bool:
        return True

    def prepare_attempt(self, record: TrialRecord) -> None:
        """Do nothing: `confirm_attempt` writes the process into the file."""

    def confirm_attempt(self, record: TrialRecord) -> None:
        self._lock.write_note(f"{record.attempts[-1].worker} {_kernel_id()}")
        _held_file_leases.add(self)

    def check(self) -> None:
        """Do nothing: a running process never loses a file lock."""

    def touch(self) -> None:
        if time.monotonic() >= self._next_touch:
            self._next_touch = time.monotonic() + _SECONDS_BETWEEN_TOUCHES
            self._lock.touch()

    def release(self) -> None:
        if self in _held_file_leases:  # otherwise the note is that of the previous process, which may have crashed
            self.record_stop()
        self.discard()

    def discard(self) -> None:
        _held_file_leases.discard(self)
        self._lock.release()

    def record_stop(self) -> None:
        self._lock.write_note(_RELEASED)


_held_file_leases: set[_FileLease] = set()


class _FileLeases:
    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder

    def try_acquire(self, record: TrialRecord) -> _FileLease | None:
        self._folder.check_in_place()
        lock = try_lock(self._folder.lease_path(record.number))
        return None if lock is None else _FileLease(lock)

    def holders(self, records: Iterable[TrialRecord]) -> Mapping[int, int | None]:
        paths = {record.number: self._folder.lease_path(record.number) for record in records}
        # Most waiting trials have no file yet; checking that first is quicker than checking the lock.
        return {number: holder_pid(path) if path.is_file() else None for number, path in paths.items()}


class _AdvisoryLease:
    def __init__(self, storage: PostgresStorage, trial_id: int) -> None:
        self._storage = storage
        self._trial_id = trial_id
        self._attempts = 0

    def was_released(self, record: TrialRecord) -> bool:
        return self._storage.get_trial_system_attrs(self._trial_id).get(_RELEASED) == len(record.attempts)

    def is_expired(self, record: TrialRecord) -> bool:
        # A lease without a recorded release expires after the grace period, for which the next `try_acquire` waits.
        return self.was_released(record)

    def prepare_attempt(self, record: TrialRecord) -> None:
        # Before the attempts are stored: if the connection is lost then, it is unknown whether the database has them.
        self._attempts = len(record.attempts)
        self._storage.fence(self._trial_id, record.attempts_as_stored)

    def confirm_attempt(self, record: TrialRecord) -> None:
        """Do nothing: `prepare_attempt` has set the fence."""

    def check(self) -> None:
        self._storage.check_fence(self._trial_id)

    def touch(self) -> None:
        """Do nothing: other machines see the lock in the database."""

    def release(self) -> None:
        if self._attempts:
            self._storage.unrecorded_releases[self._trial_id] = self._attempts
            # If that fails, the release counts as a crash until a later call records it.
            with contextlib.suppress(*DATABASE_ERRORS), self._storage.without_retries():
                record_releases(self._storage)
        self._storage.locks.free(self._storage.lock_key("trial", self._trial_id))

    def discard(self) -> None:
        self._storage.unfence(self._trial_id)
        self._storage.locks.free(self._storage.lock_key("trial", self._trial_id))


def record_releases(storage: PostgresStorage) -> None:
    """Record in the database the releases of trials that this process has not recorded yet.

    Raises:
        DATABASE_ERRORS: The database cannot be reached; a later call records the remaining releases.
    """
    for trial_id, attempts in list(storage.unrecorded_releases.items()):
        # The number of attempts identifies the released attempt. Optuna rejects attributes of a finished trial.
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
        """Return whether the lease of a running trial has been free for the whole grace period."""
        # Read once for all running trials; free leases are checked again below.
        if self._held is None:
            self._held = self._storage.held_numbers("trial")
        if trial_id in self._held:
            return False
        if _AdvisoryLease(self._storage, trial_id).was_released(record):
            return True
        wait_s = max(LEASE_GRACE_S, LEASE_GRACE_AFTER_RESTART_S - self._storage.seconds_up())
        deadline = time.monotonic() + wait_s
        while trial_id not in self._storage.held_numbers("trial"):
            if self._storage.get_trial(trial_id).state.is_finished():
                return False  # its worker has finished it since the trial was read
            if time.monotonic() >= deadline:
                return True
            time.sleep(_POLL_S)
        return False


def local_process_id(record: TrialRecord) -> int:
    """Return the process id of a trial's latest attempt; 0 without an attempt, or if it ran on another machine."""
    host, _, pid = record.attempts[-1].worker.rpartition(":") if record.attempts else ("", "", "")
    return int(pid) if host == socket.gethostname() and pid.isdigit() else 0


@functools.cache
def _kernel_id() -> str:
    """Return an identifier of the running kernel, which changes at a restart; on macOS, one of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # macOS
        return f"{uuid.getnode():x}"


def this_worker() -> str:
    """Return this process's host and process id, as stored in attempts: ``host:pid``."""
    return f"{socket.gethostname()}:{os.getpid()}"
