"""Claims: one process trains each trial, and another takes over when that one exits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from search_spaces.training_config import TrainingConfig
from studies.storage.optuna_private import claim_waiting, continue_trial, rdb_storage, take_over_running, trial_id_of
from studies.storage.output_folder import OutputFolder
from studies.storage.postgresql import ATTEMPTS
from studies.trials.leases import Lease, leases_of, local_process_id, require_single_machine_for_sqlite, this_worker
from studies.trials.memory_kills import count_memory_kills, has_risen
from studies.trials.record import (
    CONFIG,
    Attempt,
    StartedAfter,
    TrialKind,
    TrialOutcome,
    TrialPhase,
    TrialRecord,
    WhyEnded,
    read_record,
    record_outcome,
)
from studies.trials.records import own_records, refuse_foreign_folders

# A trial whose processes die one after the other in the same epoch is given up. Without evidence that memory ran out,
# some deaths are ordinary on preemptible machines and must not change the training.
MAX_CRASHES = 10
MAX_MEMORY_CRASHES = 3
MEMORY_CRASHES_BEFORE_SMALLER_PASSES = 2
_MEMORY_SIGNAL = "memory_signal"


@dataclass
class Claim:
    """A trial that only this process trains until it releases it; use it in a ``with`` statement.

    Attributes:
        trial: The running trial: suggests, reports, carries attributes.
        record: Its record when it was claimed; the last of its `attempts` is this one.
        resumed: Whether another process started it, and crashed or released it.
    """

    trial: Trial
    record: TrialRecord
    resumed: bool
    _lease: Lease = field(repr=False)
    _released: bool = field(default=False, repr=False)

    @property
    def crashed(self) -> bool:
        """Whether too many processes died in its next epoch, so that the trial ends as ``crashed``."""
        of_memory = self.record.consecutive_memory_crashes
        return self.record.consecutive_crashes >= MAX_CRASHES or of_memory >= MAX_MEMORY_CRASHES

    @property
    def exceeds_memory(self) -> bool:
        """Whether several processes have crashed in its next epoch because memory ran out."""
        return self.record.consecutive_memory_crashes >= MEMORY_CRASHES_BEFORE_SMALLER_PASSES

    def record_config(self, config: TrainingConfig) -> None:
        """Store the configuration of the trial, once all of it is suggested."""
        settings = asdict(config)
        if self.record.config != settings:
            self.trial.set_user_attr(CONFIG, settings)
            self.record = replace(self.record, config=settings)

    def finish(self, outcome: TrialOutcome, value: float | None = None) -> None:
        """Store the outcome, tell the study, and release the trial.

        Args:
            outcome: How it ended.
            value: The best value of the monitored metric; needed if the trial ended by itself and succeeded.

        Raises:
            ValueError: A value is needed and there is none; the trial then stays running and resumable.
        """
        state = final_state(self.record.kind, outcome.why_ended)
        complete = state == TrialState.COMPLETE
        if complete and value is None:
            raise ValueError(f"trial {self.record.number} ended as {outcome.why_ended}; give its best value")
        record_outcome(self.trial, outcome)
        self.trial.study.tell(self.trial, value if complete else None, state=state)
        # A finished trial takes no attributes, so the release is not recorded.
        self._give_back(self._lease.discard)

    def check(self) -> None:
        """Make sure that this process still holds the lease.

        Raises:
            LeaseLost: The lease expired and another worker has taken the trial over.
        """
        self._lease.check()

    def touch(self) -> None:
        """Show other machines that this process trains the trial; cheap enough for each batch."""
        self._lease.touch()

    def release(self) -> None:
        """Release the trial; an unfinished one stays running, and the next claim adopts it."""
        self._give_back(self._lease.release)

    def _give_back(self, how: Callable[[], None]) -> None:
        if not self._released:
            self._released = True
            how()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def claim_next(
    study: optuna.Study, folder: OutputFolder, wanted: Callable[[TrialRecord], bool] = lambda record: True
) -> Claim | None:
    """Claim the next trial that is `wanted`: first those whose worker has exited, then waiting ones, by number.

    Returns:
        The claim, or None if no trial is left that no worker trains.

    Raises:
        ConfigurationError: The study is in SQLite, and a process on another machine trains one of its trials; or as
            `refuse_foreign_folders`.
    """
    require_single_machine_for_sqlite(study, folder)
    leases = leases_of(study, folder)
    for record in _candidates(study, wanted):
        lease = leases.try_acquire(record)
        if lease is None:
            continue
        try:
            claim = _take(study, folder, record, lease)
        except BaseException:
            lease.release()  # an error of the database is no crash
            raise
        if claim is not None:
            return claim
        lease.discard()
    return None


def count_unclaimed(
    study: optuna.Study, folder: OutputFolder, wanted: Callable[[TrialRecord], bool] = lambda record: True
) -> int:
    """Return the number of trials that `claim_next` could claim now; nothing is written and no lock is acquired."""
    holders = leases_of(study, folder).holders(_candidates(study, wanted))
    # The lease of a trial that finished just after the trials were read is free as well.
    trials = study.get_trials(deepcopy=False)
    return sum(holder is None and not trials[number].state.is_finished() for number, holder in holders.items())


def final_state(kind: TrialKind, why: WhyEnded) -> TrialState:
    """Return the state of an ended trial in Optuna.

    A search trial that diverged counts as pruned there: samplers learn nothing from failed trials.
    """
    if why in (WhyEnded.MAX_EPOCHS, WhyEnded.EARLY_STOPPED):
        return TrialState.COMPLETE
    if why is WhyEnded.PRUNED or (why is WhyEnded.NONFINITE_LOSS and kind is TrialKind.SEARCH):
        return TrialState.PRUNED
    return TrialState.FAIL


def _candidates(study: optuna.Study, wanted: Callable[[TrialRecord], bool]) -> Iterator[TrialRecord]:
    records = own_records(study)
    for phase in (TrialPhase.RUNNING, TrialPhase.WAITING):
        yield from (record for record in records if record.phase is phase and wanted(record))


def _take(study: optuna.Study, folder: OutputFolder, seen: TrialRecord, lease: Lease) -> Claim | None:
    # Only under the lease is the state certain: another worker may have finished the trial or crashed meanwhile.
    trial = study.get_trials(deepcopy=False)[seen.number]
    if trial.state.is_finished():
        return None
    record = read_record(trial)
    resumed = record.phase is TrialPhase.RUNNING
    if resumed and seen.phase is TrialPhase.WAITING and not lease.is_expired(record):
        return None  # started since it was read, by a process that may be about to acquire its lease again
    # Checked before the attempt is stored: afterwards, all files in the folder count as the trial's own.
    refuse_foreign_folders(study, folder.occupied([record.experiment_name]))
    after = StartedAfter.WAITING
    if resumed:
        after = StartedAfter.STOP if lease.was_released(record) else _cause_of_death(record, trial)
    record = _with_attempt(record, trial, after)
    begin = take_over_running if resumed else claim_waiting
    lease.expect(record)
    if not begin(study, trial, ATTEMPTS, record.attempts_as_stored):
        return None
    lease.hold(record)
    return Claim(continue_trial(study, trial), replace(record, phase=TrialPhase.RUNNING), resumed, lease)


def record_memory_signal(study: optuna.Study, number: int, pid: int) -> None:
    """Record that a signal that suggests memory trouble ended a process of this machine while it trained a trial.

    Nothing is recorded if another worker has taken the trial over by now, or the trial has ended.
    """
    record = read_record(study.get_trials(deepcopy=False)[number])
    if record.phase is TrialPhase.RUNNING and local_process_id(record) == pid:
        with contextlib.suppress(UpdateFinishedTrialError):
            attempts, trial_id = len(record.attempts), trial_id_of(study, number)
            rdb_storage(study).set_trial_system_attr(trial_id, _MEMORY_SIGNAL, attempts)


def _cause_of_death(record: TrialRecord, trial: FrozenTrial) -> StartedAfter:
    """Return why the process of the latest attempt died: evidence of lack of memory, or none."""
    is_signalled = trial.system_attrs.get(_MEMORY_SIGNAL) == len(record.attempts)
    if is_signalled or any(has_risen(latest.memory_kills, count_memory_kills()) for latest in record.attempts[-1:]):
        return StartedAfter.MEMORY_CRASH
    return StartedAfter.CRASH


def _with_attempt(record: TrialRecord, trial: FrozenTrial, after: StartedAfter) -> TrialRecord:
    now = Attempt(
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        worker=this_worker(),
        epochs=len(trial.intermediate_values),
        after=after,
        memory_kills=count_memory_kills(),
    )
    return replace(record, attempts=(*record.attempts, now))
