"""The choice of the trial that a worker claims next, and the conditions for starting another trial."""

from __future__ import annotations

from studies import (
    Claim,
    HeldBack,
    claim_next_trial,
    count_claimable,
    ended_records,
    find_held_back,
    record_stop,
    targets_met,
)
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.signals import before_forced_exit

# A process that is killed after a stop request has not crashed, so the stop is recorded before the process exits.
before_forced_exit.append(record_stop)


def should_interrupt(session: Session, stop_conditions: StopConditions) -> bool:
    """Return whether to interrupt running trials after their epoch, because of the deadline or a stop request."""
    return stop_conditions.timed_out or session.stop_requested


def trial_that_met_targets(session: Session) -> str | None:
    """Return the name of a trial that has met the study's targets; None if no trial has."""
    targets = session.context.targets
    met = (record for record in ended_records(session.study) if targets_met(record.outcome, targets))
    return next((record.experiment_name for record in met), None)


def may_start(session: Session, stop_conditions: StopConditions) -> bool:
    """Return whether the stop conditions allow starting another trial."""
    return not should_interrupt(session, stop_conditions) and not (
        stop_conditions.until_targets and trial_that_met_targets(session) is not None
    )


def next_claim(session: Session, trial_filter: TrialFilter, stop_conditions: StopConditions) -> Claim | None:
    """Claim the next trial that matches the filter; None if a stop condition applies or no trial can be claimed."""
    if not may_start(session, stop_conditions):
        return None
    return claim_next_trial(
        session.study, session.context.folder, trial_filter.matches, with_search=trial_filter.search
    )


def trials_to_start(session: Session, trial_filter: TrialFilter) -> int:
    """Return the number of matching trials that a worker could start now, including those not enqueued yet."""
    return count_claimable(session.study, session.context.folder, trial_filter.matches, with_search=trial_filter.search)


def held_back(session: Session, trial_filter: TrialFilter) -> HeldBack | None:
    """Return the first matching search trial that waits for an earlier trial; None if no trial is held back."""
    if not trial_filter.search:
        return None
    return find_held_back(session.study, session.context.folder, trial_filter.matches)
