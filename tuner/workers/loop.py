"""The one work loop behind `run`, `search`, `resume` and `worker`: claim a trial, train it, until nothing is left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import replace

from search_spaces import TrainingConfig
from search_spaces.diagnostics.names import search_trial_name
from studies import (
    DATABASE_ERRORS,
    Claim,
    LeaseLost,
    RowState,
    TrialPhase,
    TrialRecord,
    count_unenqueued,
    ended_records,
    is_connection_lost,
    latest_records,
    read_record,
    storage_error_text,
    study_status,
    write_study_note,
)
from tuner.session.checkpoint_retention import tidy_checkpoints
from tuner.session.objective import run_trial
from tuner.session.run_context import RunContext, TrialInterrupted
from tuner.session.run_options import StopConditions, TrialFilter, WorkerCount
from tuner.session.session import Session
from tuner.session.status_poller import POLL_ERRORS, StatusPoller
from tuner.session.trial_selection import is_interrupted, next_claim, trial_that_met_targets, trials_to_start
from tuner.workers.auto_count import AUTO, choose_worker_count
from tuner.workers.supervisor import work_in_processes

# A look reads the database, which takes the training some milliseconds.
_SECONDS_BETWEEN_LOOKS = 5.0
# How soon one who waits for work notices that there is some.
_SECONDS_BETWEEN_QUESTIONS = 2.0
# One who stays has waited for minutes already when the database is told to be away.
_SECONDS_BETWEEN_TRIES = 15.0


def work(
    session: Session, scope: TrialFilter, limits: StopConditions, workers: WorkerCount = 1, *, stay: bool = False
) -> None:
    """Train what the study owes until nothing is left to claim or a limit is reached.

    Args:
        session: The opened study.
        scope: Which trials.
        limits: What ends the work early.
        workers: Processes that work side by side, ``auto`` for as many as are fastest; one works in this process.
        stay: Whether one that works in this process waits for more when nothing is left, until a limit is reached.

    Raises:
        ConfigurationError, RuntimeError: As `work_in_processes`.
    """
    # A process that died just after telling the study how a trial ended has left the rest to us.
    tidy_checkpoints(session.study, session.context.folder, ended_records(session.study), session.context.tidied)
    with contextlib.suppress(*POLL_ERRORS):
        write_study_note(session.study, session.context.folder)
    planned, done = planned_trials(session, scope), ended(session, scope)
    session.context.display.run_started(planned, done)
    left = len(planned) - len(done)
    if workers == AUTO:
        finished = {record.experiment_name for record in done}
        pending = {name: config for name, config in planned.items() if name not in finished}
        workers = choose_worker_count(session, scope, limits, pending)
    # A single trial is trained here, unless others that the scope holds may be added meanwhile.
    if workers > 1 and left > (0 if scope.may_gain_trials else 1):
        work_in_processes(session, scope, limits, workers, left)
    else:
        feed = StatusPoller(session, every_s=_SECONDS_BETWEEN_LOOKS)
        feed.poll()
        if stay:
            _serve(session, scope, limits, feed)
        else:
            work_here(session, scope, limits, feed)
    _tell_what_is_left(session, scope, limits)


def work_here(session: Session, scope: TrialFilter, limits: StopConditions, feed: StatusPoller | None = None) -> None:
    """Train what the study owes, one trial after another, in this process.

    Args:
        session: The opened study.
        scope: Which trials.
        limits: What ends the work early.
        feed: Who tells the display of the study as a whole; None if somebody else does.
    """
    context = replace(
        session.context,
        should_stop=lambda: is_interrupted(session, limits),
        after_batch=(lambda: None) if feed is None else feed.poll_if_due,
    )
    while True:
        try:
            claim = next_claim(session, scope, limits)
            if claim is None or not _train_to_the_end(claim, context):
                return
            number = claim.record.number
            context.display.trial_ended(read_record(session.study.get_trials(deepcopy=False)[number]))
        except DATABASE_ERRORS as error:
            # Whether the last transaction was committed is seen when the trial is claimed again, as after a death.
            if not is_connection_lost(error):
                raise
            context.display.note("the connection to the database broke; going on over a new one")
        except LeaseLost:
            context.display.note(
                "another worker has taken over this trial, since this one seemed to be dead; leaving it"
            )
        if feed is not None:
            feed.poll_after_trial()


def _train_to_the_end(claim: Claim, context: RunContext) -> bool:
    """Train a claimed trial; return False if it is left for later, as all others are to be."""
    try:
        with claim:
            run_trial(claim, context)
    except (TrialInterrupted, LeaseLost, *DATABASE_ERRORS) as error:
        context.display.trial_interrupted(claim.record.number)
        if isinstance(error, TrialInterrupted):
            return False
        raise
    return True


def _serve(session: Session, scope: TrialFilter, limits: StopConditions, feed: StatusPoller) -> None:
    """Train what the study owes, and what is added to it, until a limit is reached, also while the database is away."""
    display = session.context.display
    says_so = False
    while True:
        with _database_away_told(session):
            work_here(session, scope, limits, feed)
            if is_interrupted(session, limits):
                break
            if not says_so:
                display.note("waiting for work; SIGTERM or `khmer-tuner stop` ends this")
            time.sleep(_SECONDS_BETWEEN_QUESTIONS)
            says_so = not trials_to_start(session, scope)
            feed.poll_if_due()
    if session.stop_requested:
        display.note("stop was asked for")


@contextlib.contextmanager
def _database_away_told(session: Session) -> Iterator[None]:
    try:
        yield
    except DATABASE_ERRORS as error:
        reason = storage_error_text(error, session.storage_url)
        session.context.display.note(f"{reason}; trying again in {_SECONDS_BETWEEN_TRIES:.0f} s")
        time.sleep(_SECONDS_BETWEEN_TRIES)


def planned_trials(session: Session, scope: TrialFilter) -> dict[str, TrainingConfig | None]:
    """Return what a scope holds, done or not, by name; None for a search trial whose settings are not drawn yet."""
    records = latest_records(session.study)
    asked = session.context.experiments
    names: dict[str, TrainingConfig | None] = {
        record.experiment_name: asked.get(record.experiment_name) or (record.training_config if record.config else None)
        for record in records
        if scope.holds(record)
    }
    return names | dict.fromkeys(_names_to_come(session, scope, records))


def ended(session: Session, scope: TrialFilter) -> list[TrialRecord]:
    """Return the ended trials that a scope holds: presets in the order of their file, then search trials."""
    return [record for record in ended_records(session.study) if scope.holds(record)]


def _names_to_come(session: Session, scope: TrialFilter, records: Collection[TrialRecord]) -> list[str]:
    """Return the names of the search trials that a scope holds and the study, of `records`, does not have yet."""
    if not scope.search:
        return []
    next_number = len(session.study.get_trials(deepcopy=False))
    to_come = range(next_number, next_number + count_unenqueued(session.study, records))
    return [search_trial_name(number) for number in to_come]


def _tell_what_is_left(session: Session, scope: TrialFilter, limits: StopConditions) -> None:
    """Say why trials that the scope holds have not ended, if any has not."""
    records = latest_records(session.study)
    open_phases = (TrialPhase.WAITING, TrialPhase.RUNNING)
    left = [record.experiment_name for record in records if record.phase in open_phases and scope.holds(record)]
    left = sorted([*left, *_names_to_come(session, scope, records)])
    if not left:
        return
    if limits.timed_out:
        reason = "the time is up"
    elif session.stop_requested:
        reason = "stop was asked for"
    elif limits.until_targets and (winner := trial_that_met_targets(session)) is not None:
        reason = f"{winner} has met the targets"
    elif _in_hands(session).issuperset(left):
        reason = f"another process is training {'them' if len(left) > 1 else 'it'}"
    else:
        reason = "no worker is left; `khmer-tuner resume` goes on with them"
    shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    session.context.display.note(f"{shown}: not done here, {reason}")


def _in_hands(session: Session) -> set[str]:
    """Return the trials that some process is training now."""
    rows = study_status(session.study, session.context.folder).rows
    return {row.name for row in rows if row.state is RowState.RUNNING}
