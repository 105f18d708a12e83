"""Claims: one process at a time trains a trial; after the process has exited, another process takes over the trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from search_spaces.training_config import TrainingConfig
from studies.storage.optuna_private import claim_waiting, continue_trial, take_over_running
from studies.storage.output_folder import OutputFolder
from studies.storage.postgresql import ATTEMPTS
from studies.trials.leases import Lease, leases_of, require_single_machine_for_sqlite, this_worker
from studies.trials.record import (
    CONFIG,
    Attempt,
    StartedAfter,
    TrialKind,
    TrialOutcome,
    TrialPhase,
    TrialRecord,
    WhyEnded,
    own_records,
    read_record,
    record_outcome,
    refuse_foreign_folders,
)

# A trial ends as `crashed` after this number of consecutive crashes in the same epoch.
MAX_CRASHES = 10


@dataclass
class Claim:
    """A trial that only this process may train; a context manager that releases the trial on exit.

    Attributes:
        trial: The running Optuna trial.
        record: The trial's record; the last item of its `attempts` is the attempt of this process.
        resumed: Whether the trial was started before, by a process that crashed or released the trial.
    """

    trial: Trial
    record: TrialRecord
    resumed: bool
    _lease: Lease = field(repr=False)
    _released: bool = field(default=False, repr=False)

    @property
    def crashed(self) -> bool:
        """Whether the trial must end as ``crashed``, because of too many crashes since its last finished epoch."""
        return self.record.consecutive_crashes >= MAX_CRASHES

    def record_config(self, config: TrainingConfig) -> None:
        """Store the configuration of the trial, after all its parameters have been suggested."""
        settings = asdict(config)
        if self.record.config != settings:
            self.trial.set_user_attr(CONFIG, settings)
            self.record = replace(self.record, config=settings)

    def finish(self, outcome: TrialOutcome, value: float | None = None) -> None:
        """Store the outcome, report the result to the study, and release the trial.

        Args:
            outcome: How the trial ended.
            value: The best value of the monitored metric; required if the trial is completed and not pruned.

        Raises:
            ValueError: The required value is missing; the trial stays running and can be resumed.
        """
        state = final_state(self.record.kind, outcome.why_ended)
        complete = state == TrialState.COMPLETE
        if complete and value is None:
            raise ValueError(
                f"trial {self.record.number}: found no value, although the trial ended as {outcome.why_ended}; "
                "pass the best value of the monitored metric"
            )
        record_outcome(self.trial, outcome)
        self.trial.study.tell(self.trial, value if complete else None, state=state)
        # Optuna rejects attributes of a finished trial, so the release is not recorded.
        self._release_once(self._lease.discard)

    def check(self) -> None:
        """Check that this process still holds the lease.

        Raises:
            LeaseLost: The lease expired, and another worker has taken over the trial.
        """
        self._lease.check()

    def touch(self) -> None:
        """Refresh the heartbeat by which other machines see that this process is training; may be called per batch."""
        self._lease.touch()

    def release(self) -> None:
        """Release the trial; an unfinished trial keeps the state running, and the next claim resumes it."""
        self._release_once(self._lease.release)

    def _release_once(self, free_lease: Callable[[], None]) -> None:
        if not self._released:
            self._released = True
            free_lease()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def claim_next(
    study: optuna.Study, folder: OutputFolder, matches: Callable[[TrialRecord], bool] = lambda record: True
) -> Claim | None:
    """Claim the next trial for which `matches` returns True.

    Interrupted trials come first, then waiting trials, both in order of trial number.

    Returns:
        The claim, or None if every matching trial is finished or held by a worker.

    Raises:
        ConfigurationError: The study is in SQLite, and a process on another machine is training one of its trials; or
            as `refuse_foreign_folders`.
    """
    require_single_machine_for_sqlite(study, folder)
    leases = leases_of(study, folder)
    for record in _pending_records(study, matches):
        lease = leases.try_acquire(record)
        if lease is None:
            continue
        try:
            claim = _claim(study, folder, record, lease)
        except BaseException:
            lease.release()  # a database error does not count as a crash
            raise
        if claim is not None:
            return claim
        lease.discard()
    return None


def count_unclaimed(
    study: optuna.Study, folder: OutputFolder, matches: Callable[[TrialRecord], bool] = lambda record: True
) -> int:
    """Count the trials that `claim_next` could claim now, without writing anything or acquiring a lock."""
    holders = leases_of(study, folder).holders(_pending_records(study, matches))
    # A free lease may also be that of a trial that finished after `_pending_records` had read the trials.
    trials = study.get_trials(deepcopy=False)
    return sum(holder is None and not trials[number].state.is_finished() for number, holder in holders.items())


def final_state(kind: TrialKind, why: WhyEnded) -> TrialState:
    """Return the Optuna state of an ended trial.

    A diverged search trial gets the state pruned, because samplers ignore failed trials.
    """
    if why in (WhyEnded.MAX_EPOCHS, WhyEnded.EARLY_STOPPED):
        return TrialState.COMPLETE
    if why is WhyEnded.PRUNED or (why is WhyEnded.NONFINITE_LOSS and kind is TrialKind.SEARCH):
        return TrialState.PRUNED
    return TrialState.FAIL


def _pending_records(study: optuna.Study, matches: Callable[[TrialRecord], bool]) -> Iterator[TrialRecord]:
    records = own_records(study)
    for phase in (TrialPhase.RUNNING, TrialPhase.WAITING):
        yield from (record for record in records if record.phase is phase and matches(record))


def _claim(study: optuna.Study, folder: OutputFolder, first_read: TrialRecord, lease: Lease) -> Claim | None:
    # Read again under the lease: another worker may have finished the trial or crashed since the first read.
    trial = study.get_trials(deepcopy=False)[first_read.number]
    if trial.state.is_finished():
        return None
    record = read_record(trial)
    resumed = record.phase is TrialPhase.RUNNING
    if resumed and first_read.phase is TrialPhase.WAITING and not lease.is_expired(record):
        return None  # started since the first read, by a process that may be about to re-acquire its lease
    # Checked before the attempt is stored: afterwards, all files in the folder count as this trial's.
    refuse_foreign_folders(study, folder.occupied([record.experiment_name]))
    after = StartedAfter.WAITING
    if resumed:
        after = StartedAfter.STOP if lease.was_released(record) else StartedAfter.CRASH
    record = _with_attempt(record, trial, after)
    claim_trial = take_over_running if resumed else claim_waiting
    lease.prepare_attempt(record)
    if not claim_trial(study, trial, ATTEMPTS, record.attempts_as_stored):
        return None
    lease.confirm_attempt(record)
    return Claim(continue_trial(study, trial), replace(record, phase=TrialPhase.RUNNING), resumed, lease)


def _with_attempt(record: TrialRecord, trial: FrozenTrial, after: StartedAfter) -> TrialRecord:
    attempt = Attempt(
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        worker=this_worker(),
        epochs=len(trial.intermediate_values),
        after=after,
    )
    return replace(record, attempts=(*record.attempts, attempt))
