"""Claims: one process trains each trial, and another takes over when that one exits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from search_spaces.training_config import TrainingConfig
from studies.storage.optuna_private import claim_waiting, continue_trial, take_over_running
from studies.storage.output_folder import OutputFolder
from studies.storage.postgresql import ATTEMPTS
from studies.trials.leases import Lease, leases_of, refuse_other_machines, this_worker
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
from studies.trials.records import own_records

# A trial whose processes crash one after the other, for example for lack of memory, is given up.
MAX_CRASHES = 3
CRASHES_BEFORE_SMALLER_PASSES = 2


@dataclass
class Claim:
    """A trial that only this process trains until it releases it; use it in a ``with`` statement.

    Attributes:
        trial: The running trial: suggests, reports, carries attributes.
        record: Its record when it was claimed; the last of its `attempts` is this one.
        adopted: Whether another process started it, and crashed or released it.
    """

    trial: Trial
    record: TrialRecord
    adopted: bool
    _lease: Lease = field(repr=False)
    _released: bool = field(default=False, repr=False)

    @property
    def crashed(self) -> bool:
        """Whether `MAX_CRASHES` processes have crashed one after the other, so that it is not trained again."""
        return self.record.consecutive_crashes >= MAX_CRASHES

    @property
    def may_exceed_memory(self) -> bool:
        """Whether several processes have crashed in its next epoch, perhaps for lack of memory."""
        return self.record.consecutive_crashes >= CRASHES_BEFORE_SMALLER_PASSES

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

    def release(self) -> None:
        """Release the trial; an unfinished one stays running, and the next claim adopts it."""
        self._give_back(self._lease.release)

    def _give_back(self, how: Callable[[], None]) -> None:
        if not self._released:
            self._released = True
            how()

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim_next(
    study: optuna.Study, folder: OutputFolder, wanted: Callable[[TrialRecord], bool] = lambda record: True
) -> Claim | None:
    """Claim a trial: first those whose worker has exited, then waiting ones, by number.

    Args:
        study: From `create_or_join_study`.
        folder: The study's folder.
        wanted: Which trials may be claimed; the default is all.

    Returns:
        The claim, or None if no trial is left that no worker trains.

    Raises:
        ConfigurationError: The study is in SQLite, and a process on another machine trains one of its trials.
    """
    refuse_other_machines(study, folder)
    leases = leases_of(study, folder)
    for record in _candidates(study, wanted):
        lease = leases.try_acquire(record)
        if lease is None:
            continue
        try:
            claim = _take(study, record, lease)
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


def _take(study: optuna.Study, seen: TrialRecord, lease: Lease) -> Claim | None:
    # Only under the lease is the state certain: another worker may have finished the trial or crashed meanwhile.
    trial = study.get_trials(deepcopy=False)[seen.number]
    if trial.state.is_finished():
        return None
    record = read_record(trial)
    adopted = record.phase is TrialPhase.RUNNING
    if adopted and seen.phase is TrialPhase.WAITING and not lease.is_expired(record):
        return None  # started since it was read, by a process that may be about to acquire its lease again
    after = StartedAfter.WAITING
    if adopted:
        after = StartedAfter.STOP if lease.was_released(record) else StartedAfter.CRASH
    record = _with_attempt(record, trial, after)
    begin = take_over_running if adopted else claim_waiting
    lease.expect(record)
    if not begin(study, trial, ATTEMPTS, record.attempts_as_stored):
        return None
    lease.hold(record)
    return Claim(continue_trial(study, trial), replace(record, phase=TrialPhase.RUNNING), adopted, lease)


def _with_attempt(record: TrialRecord, trial: FrozenTrial, after: StartedAfter) -> TrialRecord:
    now = Attempt(
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        worker=this_worker(),
        epochs=len(trial.intermediate_values),
        after=after,
    )
    return replace(record, attempts=(*record.attempts, now))
