"""Leases: who works on which trial, as something that the dead cannot keep and the living do not lose.

With SQLite a lease is a lock on a file in the output folder: the kernel frees it when its process dies, and a live
process never loses it. With PostgreSQL it is an advisory lock, see `studies.locks.advisory_locks`; a live process can
lose that one, when the server restarts or the network fails. So it is taken over only after it has been free for some
seconds, in which a live process takes it back, and whoever was presumed dead is kept from writing by the fence of
`studies.storage.postgresql`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage

from studies.locks.file_locks import FileLock, holder_pid, try_lock
from studies.storage.open import BUSY_TIMEOUT_S, DATABASE_ERRORS
from studies.storage.optuna_private import rdb_storage, trial_id_of
from studies.storage.output_folder import OutputFolder
from studies.storage.postgresql import LeaseLost, PostgresStorage
from studies.trials.record import TrialPhase, TrialRecord

# For so long a lease must be free before it is taken over: its live owner looks every second whether it has it still.
LEASE_GRACE_S = 3.0
# After a restart of the server all have lost theirs, and come back as they find it again.
LEASE_GRACE_AFTER_RESTART_S = 15.0
_POLL_S = 0.25
_LET_GO = "let go"


class Lease(Protocol):
    """A lease that this process holds."""

    def was_released(self, record: TrialRecord) -> bool:
        """Return whether the process before this one let go of the trial, and did not die."""

    def is_expired(self, record: TrialRecord) -> bool:
        """Return whether a running trial whose lease was just found free is nobody's, for certain."""

    def expect(self, record: TrialRecord) -> None:
        """Note whose it is about to be: the last of the record's attempts."""

    def hold(self, record: TrialRecord) -> None:
        """Note whose it is now."""

    def check(self) -> None:
        """Make sure that nobody has taken over.

        Raises:
            LeaseLost: Somebody has.
        """

    def release(self) -> None:
        """Free it, and tell whoever takes it next that its holder did not die."""

    def free(self) -> None:
        """Free it as if it had never been taken; a second call does nothing."""


class Leases(Protocol):
    """The leases of a study's trials."""

    def try_acquire(self, record: TrialRecord) -> Lease | None:
        """Take a trial's lease; None if another process, or another part of this one, works on it."""

    def holders(self, records: Iterable[TrialRecord]) -> Mapping[int, int | None]:
        """Return who holds the leases of trials, by number; nothing is taken or written.

        Returns:
            The process ids: None where nobody does, 0 where it is on another machine.
        """


def leases_of(study: optuna.Study, folder: OutputFolder) -> Leases:
    """Return the leases of a study's trials."""
    storage = rdb_storage(study)
    return _AdvisoryLeases(study, storage) if isinstance(storage, PostgresStorage) else _FileLeases(folder)


def study_lock(storage: RDBStorage, name: str, folder: OutputFolder) -> AbstractContextManager[object]:
    """Return the lock under which a study's makeup changes, on whatever machine.

    Raises:
        ConfigurationError: Another process does not let go of it in time.
    """
    if isinstance(storage, PostgresStorage):
        return storage.locks.waiting(storage.lock_key("study", name), f"study {name!r}", timeout_s=BUSY_TIMEOUT_S)
    return folder.lock()


def lock_of(study: optuna.Study, folder: OutputFolder) -> AbstractContextManager[object]:
    """Return the lock under which the makeup of a study that has begun changes: see `study_lock`."""
    return study_lock(rdb_storage(study), study.study_name, folder)


@contextlib.contextmanager
def without_retries(study: optuna.Study) -> Iterator[None]:
    """Do not wait for a server that cannot be reached, in a ``with`` statement."""
    storage = rdb_storage(study)
    with storage.impatient() if isinstance(storage, PostgresStorage) else contextlib.nullcontext():
        yield


def note_stop() -> None:
    """Note in the leases that this process holds on files that it did not die, from whichever of its threads.

    On a server a process that ends without telling has died: the connection that could tell may be what it waits for.
    """
    for lease in list(_ours):
        lease.note_stop()


class _FileLease:
    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def was_released(self, record: TrialRecord) -> bool:
        return self._lock.note == _LET_GO

    def is_expired(self, record: TrialRecord) -> bool:
        return True

    def expect(self, record: TrialRecord) -> None:
        """A process that dies meanwhile has not worked on it."""

    def hold(self, record: TrialRecord) -> None:
        self._lock.write_note(record.attempts[-1].worker)
        _ours.add(self)

    def check(self) -> None:
        """The kernel keeps it for us."""

    def release(self) -> None:
        if self in _ours:  # else the note is of the one before, who may have died
            self.note_stop()
        self.free()

    def free(self) -> None:
        _ours.discard(self)
        self._lock.release()

    def note_stop(self) -> None:
        self._lock.write_note(_LET_GO)


# Those on files that this process holds.
_ours: set[_FileLease] = set()


class _FileLeases:
    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder

    def try_acquire(self, record: TrialRecord) -> _FileLease | None:
        lock = try_lock(self._folder.lease_path(record.number))
        return None if lock is None else _FileLease(lock)

    def holders(self, records: Iterable[TrialRecord]) -> Mapping[int, int | None]:
        paths = {record.number: self._folder.lease_path(record.number) for record in records}
        # Most of those that wait have none yet, which is quicker to see than that nobody holds it.
        return {number: holder_pid(path) if path.exists() else None for number, path in paths.items()}


class _AdvisoryLease:
    def __init__(self, storage: PostgresStorage, trial_id: int) -> None:
        self._storage = storage
        self._trial_id = trial_id
        self._attempts = 0

    def was_released(self, record: TrialRecord) -> bool:
        return self._storage.get_trial_system_attrs(self._trial_id).get(_LET_GO) == len(record.attempts)

    def is_expired(self, record: TrialRecord) -> bool:
        # Only who waits while it is free can tell; the next look at all trials does.
        return self.was_released(record)

    def expect(self, record: TrialRecord) -> None:
        # Already now: if the database goes away meanwhile, nobody knows which attempts it has.
        self._attempts = len(record.attempts)
        self._storage.fence(self._trial_id, record.attempts_as_stored)

    def hold(self, record: TrialRecord) -> None:
        """The fence is up."""

    def check(self) -> None:
        self._storage.check_fence(self._trial_id)

    def release(self) -> None:
        if self._attempts:
            self._storage.unrecorded_releases[self._trial_id] = self._attempts
            # Until it can be told it looks like a death.
            with contextlib.suppress(*DATABASE_ERRORS), self._storage.impatient():
                record_releases(self._storage)
        self._storage.locks.free(self._storage.lock_key("trial", self._trial_id))

    def free(self) -> None:
        self._storage.unfence(self._trial_id)
        self._storage.locks.free(self._storage.lock_key("trial", self._trial_id))


def record_releases(storage: PostgresStorage) -> None:
    """Write down which trials this process has let go of, alive.

    Raises:
        DATABASE_ERRORS: The database cannot be reached; another call goes on.
    """
    for trial_id, attempts in list(storage.unrecorded_releases.items()):
        # Of so many attempts: where another process has begun one more since, this says nothing. A trial that has ended
        # takes no attributes.
        with contextlib.suppress(UpdateFinishedTrialError, LeaseLost):
            storage.set_trial_system_attr(trial_id, _LET_GO, attempts)
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
            record.number: _process_id(record) if trial_id_of(self._study, record.number) in held else None
            for record in records
        }

    def _is_expired(self, record: TrialRecord, trial_id: int) -> bool:
        """Return whether nobody holds the lease of a running trial, and nobody is about to take it back."""
        # Asked once for all running trials; what is not held is looked at again below.
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
                return False  # since it was read, its worker has ended it
            if time.monotonic() >= enough:
                return True
            time.sleep(_POLL_S)
        return False


def _process_id(record: TrialRecord) -> int:
    host, _, pid = record.attempts[-1].worker.rpartition(":") if record.attempts else ("", "", "")
    return int(pid) if host == socket.gethostname() and pid.isdigit() else 0


def this_worker() -> str:
    """Return host and process id of this process, as attempts name it."""
    return f"{socket.gethostname()}:{os.getpid()}"
