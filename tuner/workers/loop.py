"""The loop of `run`, `search`, `resume` and `worker`, which claims and trains trials until none can be claimed."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from search_spaces import ConfigurationError, ExperimentFailedError, TrainingConfig
from search_spaces.diagnostics.disk import is_disk_error
from search_spaces.diagnostics.names import search_trial_name
from search_spaces.diagnostics.wording import listed
from studies import (
    DATABASE_ERRORS,
    Claim,
    LeaseLost,
    TrialPhase,
    TrialRecord,
    WhyEnded,
    count_unenqueued,
    ended_records,
    is_connection_lost,
    latest_records,
    own_records,
    read_record,
    storage_error_text,
    study_status,
    write_study_note,
)
from tuner.display.lines import failure
from tuner.session.checkpoint_retention import delete_unneeded_checkpoints
from tuner.session.objective import run_trial
from tuner.session.outcome import outcome_of_error
from tuner.session.run_context import RunContext, TrialInterrupted
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.status_poller import POLL_ERRORS, StatusPoller
from tuner.session.trial_selection import (
    held_back,
    may_start,
    next_claim,
    should_interrupt,
    trial_that_met_targets,
    trials_to_start,
)
from tuner.workers.fixed_settings import fix_worker_threads, note_idle_workers, pytorch_threads
from tuner.workers.supervisor import work_in_processes
from tuner.workers.waiting import held_back_text, wait_until_startable

if TYPE_CHECKING:
    from tuner.workers.ray_cluster import RayCluster

_SECONDS_BETWEEN_POLLS = 5.0
# How often a waiting worker tries to claim a new trial.
_SECONDS_BETWEEN_CLAIMS = 2.0
# After minutes of reconnecting, a worker reports the database as unreachable and pauses this long.
_SECONDS_BETWEEN_RETRIES = 15.0


def work(
    session: Session,
    trial_filter: TrialFilter,
    stop_conditions: StopConditions,
    workers: int = 1,
    *,
    threads: int | None = None,
    wait: bool = False,
    wait_for_others: bool = False,
    cluster: RayCluster | None = None,
) -> None:
    """Train the study's pending trials until none can be claimed or a stop condition holds.

    Args:
        session: The opened study.
        trial_filter: The trials to train.
        stop_conditions: When to stop early.
        workers: Number of parallel workers: processes of this machine (1 trains in this process) or, with `cluster`,
            tasks of a cluster.
        threads: Number of PyTorch threads of each worker; see `RunOptions.threads`.
        wait: Whether to wait for new trials until a stop condition holds.
        wait_for_others: Whether to wait until other processes have finished their trials, and to take over the trials
            of a process that exits.
        cluster: Starts the workers; None starts them on this machine.

    Raises:
        ConfigurationError, ExperimentFailedError: Raised by `work_here` or `work_in_processes`.
    """
    # A process that was killed just after it reported a result may not have deleted the trial's checkpoints.
    delete_unneeded_checkpoints(
        session.study, session.context.folder, ended_records(session.study), session.context.checkpoints_deleted
    )
    with contextlib.suppress(*POLL_ERRORS):
        write_study_note(session.study, session.context.folder)
    planned, done = planned_trials(session, trial_filter), finished_trials(session, trial_filter)
    session.context.finished_before.update(record.number for record in done)
    session.context.display.run_started(planned, done)
    poller = StatusPoller(session, every_s=_SECONDS_BETWEEN_POLLS)
    poller.poll()
    finished = {record.experiment_name for record in done}
    pending = {name: config for name, config in planned.items() if name not in finished}
    if pending and trial_filter.search and wait_for_others and may_start(session, stop_conditions):
        note_idle_workers(session, workers)
    threads = fix_worker_threads(session, workers, threads, None if cluster is None else cluster.cpus)
    # Train a single trial in this process, unless more trials that match the filter may be added.
    has_many = wait or len(pending) > (0 if trial_filter.may_gain_trials else 1)
    in_processes = cluster is not None or (workers > 1 and has_many)

    def train() -> bool:
        if not in_processes:
            with pytorch_threads(threads):
                return work_here(session, trial_filter, stop_conditions, poller)
        if wait and not trials_to_start(session, trial_filter):
            return False
        try:
            return work_in_processes(session, trial_filter, stop_conditions, workers, threads, poller, cluster)
        except (ConfigurationError, ExperimentFailedError):
            if wait:  # if the workers gave up because the database cannot be reached, this raises a database error
                trials_to_start(session, trial_filter)
            raise

    noted: set[str] = set()
    while True:
        if wait:
            _work_and_wait(session, trial_filter, stop_conditions, poller, train)
        elif not train() and in_processes:  # signals have stopped all workers
            wait_for_others = False
        if not (wait_for_others and _wait_for_others(session, trial_filter, stop_conditions, poller, noted)):
            break
    _report_pending(session, trial_filter, stop_conditions)


def work_here(
    session: Session, trial_filter: TrialFilter, stop_conditions: StopConditions, poller: StatusPoller | None = None
) -> bool:
    """Train the study's pending trials one after another in this process; return whether any was trained.

    If every pending search trial must wait for an earlier trial, this function waits, too, as long as a running worker
    may train that trial. The poller updates the display between batches and trials; None if the parent process updates
    the display.

    Raises:
        ExperimentFailedError: Two trials in a row failed with the same error.
    """
    context = replace(
        session.context,
        should_stop=lambda: should_interrupt(session, stop_conditions),
        after_batch=(lambda: None) if poller is None else poller.poll_if_due,
    )
    has_trained = False
    while True:
        try:
            claim = next_claim(session, trial_filter, stop_conditions)
            if claim is None:
                if wait_until_startable(session, trial_filter, stop_conditions, poller):
                    continue
                return has_trained
            if not _train_claimed(claim, context, trial_filter.skipped):
                return has_trained
            has_trained = True
            record = read_record(session.study.get_trials(deepcopy=False)[claim.record.number])
            if record.number not in trial_filter.skipped:
                context.display.trial_ended(record)
                has_failed = record.outcome is not None and record.outcome.why_ended is WhyEnded.FAILED
                _raise_if_repeated(record, failure(record.outcome) if has_failed else "", context.repeated_failures)
        except DATABASE_ERRORS as error:
            # The next claim shows whether the last transaction was committed, as after a crash.
            if not is_connection_lost(error):
                raise
            context.display.note("the connection to the database was lost; reconnecting to continue")
        except LeaseLost:
            context.display.note(
                "another worker has taken over this trial, because this worker's lease expired; claiming the next trial"
            )
        if poller is not None:
            poller.poll_after_trial()


def _train_claimed(claim: Claim, context: RunContext, skipped: set[int]) -> bool:
    """Train a claimed trial; return False if a stop request or the deadline interrupted the trial, otherwise True.

    If an error leaves the trial pending, its number is added to `skipped`.
    """
    try:
        with claim:
            run_trial(claim, context)
    except (TrialInterrupted, LeaseLost, *DATABASE_ERRORS) as error:
        context.display.trial_interrupted(claim.record.number)
        if isinstance(error, TrialInterrupted):
            return False
        raise
    except Exception as error:
        if is_disk_error(error) or isinstance(error, ConfigurationError):
            raise  # all other trials would fail as well
        skipped.add(claim.record.number)
        name, reason = claim.record.experiment_name, failure(outcome_of_error(error, []))
        context.display.trial_interrupted(claim.record.number)
        context.display.note(f"{name} stays pending: {reason}; `khmer-tuner resume` trains it again")
        _raise_if_repeated(claim.record, reason, context.repeated_failures)
    return True


def _raise_if_repeated(record: TrialRecord, reason: str, failures: dict[str, str]) -> None:
    """Raise if a second trial in a row fails with the same error; `reason` is "" for a trial without an error."""
    error = re.sub(r"\S*[\d/]\S*", "", reason)  # numbers and paths differ from trial to trial
    if error not in failures.values():
        failures.clear()
    if error:
        failures[record.experiment_name] = error
    if len(failures) > 1:
        raise ExperimentFailedError(
            f"{' and '.join(failures)} failed with the same error, so no other trial is started: {reason}; remove the "
            "cause, then run `khmer-tuner resume` (add --retry-failed to train failed trials again)"
        )


def _work_and_wait(
    session: Session,
    trial_filter: TrialFilter,
    stop_conditions: StopConditions,
    poller: StatusPoller,
    train: Callable[[], bool],
) -> None:
    """Train pending and newly added trials with `train`; retry while the database cannot be reached."""
    display = session.context.display
    is_waiting = False
    while True:
        try:
            has_trained = train()
            if should_interrupt(session, stop_conditions):
                break
            if has_trained or not is_waiting:
                reason = _held_back_reason(session, trial_filter) or "waiting for new trials"
                display.note(f"{reason}; SIGTERM or `khmer-tuner stop` ends the worker")
            is_waiting = True
            time.sleep(_SECONDS_BETWEEN_CLAIMS)
            poller.poll_if_due()
        except DATABASE_ERRORS as error:
            is_waiting = False
            _pause_after(error, session)
    if session.stop_requested:
        display.note("a stop was requested; the worker exits")


def _wait_for_others(
    session: Session, trial_filter: TrialFilter, stop_conditions: StopConditions, poller: StatusPoller, noted: set[str]
) -> bool:
    """Wait while other processes train all pending trials; return whether a trial can be claimed.

    Each worker of these processes is shown once, in a note, and added to `noted`.
    """
    while True:
        try:
            if not may_start(session, stop_conditions) or not (pending := _pending_names(session, trial_filter)):
                return False
            if trials_to_start(session, trial_filter):
                time.sleep(_SECONDS_BETWEEN_CLAIMS)  # another process may be about to claim it
                return True
            if held_back(session, trial_filter) is not None:
                if wait_until_startable(session, trial_filter, stop_conditions, poller):
                    return True
                if (held := held_back(session, trial_filter)) is not None and held.is_blocked:
                    return False
            records = [record for record in latest_records(session.study) if record.experiment_name in pending]
            workers = {attempt.worker for record in records for attempt in record.attempts[-1:]}
            if workers - noted:
                text = f"waiting for the trials of {listed(sorted(workers), 3)}; see `khmer-tuner status`"
                session.context.display.note(text)
            noted |= workers
            # Read the study only when the display polls it, because reading many trials takes long.
            while not poller.is_due and not should_interrupt(session, stop_conditions):
                time.sleep(_SECONDS_BETWEEN_CLAIMS)
            poller.poll_if_due()
        except DATABASE_ERRORS as error:
            _pause_after(error, session)


def _pause_after(error: Exception, session: Session) -> None:
    reason = storage_error_text(error, session.storage_url)
    session.context.display.note(f"{reason}; trying again in {_SECONDS_BETWEEN_RETRIES:.0f} s")
    time.sleep(_SECONDS_BETWEEN_RETRIES)


def planned_trials(session: Session, trial_filter: TrialFilter) -> dict[str, TrainingConfig | None]:
    """Return the settings of the trials that match the filter, keyed by name; None until they have been sampled."""
    records = latest_records(session.study)
    experiments = session.context.experiments
    names: dict[str, TrainingConfig | None] = {}
    for record in filter(trial_filter.matches, records):
        settings = record.training_config if record.config else None
        names[record.experiment_name] = experiments.get(record.experiment_name) or settings
    return names | dict.fromkeys(_unenqueued_names(session, trial_filter, records))


def finished_trials(session: Session, trial_filter: TrialFilter) -> list[TrialRecord]:
    """Return the finished trials that match the filter: presets in the order of their file, then search trials."""
    return list(filter(trial_filter.matches, ended_records(session.study)))


def _unenqueued_names(session: Session, trial_filter: TrialFilter, records: Collection[TrialRecord]) -> list[str]:
    """Return the future names of the search trials in the budget that are not enqueued yet."""
    if not trial_filter.search:
        return []
    next_number = len(session.study.get_trials(deepcopy=False))
    numbers = range(next_number, next_number + count_unenqueued(session.study, records))
    return [search_trial_name(number) for number in numbers]


def _report_pending(session: Session, trial_filter: TrialFilter, stop_conditions: StopConditions) -> None:
    pending = _pending_names(session, trial_filter)
    if not pending:
        return
    if stop_conditions.timed_out:
        reason = "the time limit was reached"
    elif session.stop_requested:
        reason = "a stop was requested"
    elif stop_conditions.until_targets and (winner := trial_that_met_targets(session)) is not None:
        reason = f"{winner} has met the targets"
    elif held_reason := _held_back_reason(session, trial_filter):
        reason = held_reason
        records = own_records(session.study)
        trial_filter.skipped.update(record.number for record in records if record.experiment_name in pending)
    elif {row.name for row in study_status(session.study, session.context.folder).running}.issuperset(pending):
        reason = f"another process is training {'them' if len(pending) > 1 else 'it'}"
    else:
        reason = "all workers have exited; run `khmer-tuner resume` to continue"
    session.context.display.note(f"{listed(pending, 3)}: still pending, because {reason}")


def _held_back_reason(session: Session, trial_filter: TrialFilter) -> str:
    """Describe why no running worker can train the pending search trials; "" if one can."""
    held = held_back(session, trial_filter)
    return "" if held is None or not held.is_blocked else held_back_text(session, held)


def _pending_names(session: Session, trial_filter: TrialFilter) -> list[str]:
    records = latest_records(session.study)
    pending_phases = (TrialPhase.WAITING, TrialPhase.RUNNING)
    names = [r.experiment_name for r in filter(trial_filter.matches, records) if r.phase in pending_phases]
    return sorted([*names, *_unenqueued_names(session, trial_filter, records)])
