"""What a command may begin next, and whether it may begin anything more."""

from __future__ import annotations

from studies import (
    Claim,
    TrialKind,
    claim_next,
    claim_with_top_up,
    count_unclaimed,
    count_unenqueued,
    ended_records,
    latest_records,
    note_stop,
    prepare_sampling,
    search_settings,
    study_invariants,
    targets_met,
)
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.signals import before_forced_end

# Who was asked to stop has not died, whatever it was waiting for.
before_forced_end.append(note_stop)


def is_interrupted(session: Session, limits: StopConditions) -> bool:
    """Return whether running trials are to be left after their epoch: the time is up, or somebody asked for it."""
    return limits.timed_out or session.stop_requested


def trial_that_met_targets(session: Session) -> str | None:
    """Return a trial that has met the study's targets, or None."""
    targets = session.context.targets
    met = (record for record in ended_records(session.study) if targets_met(record.outcome, targets))
    return next((record.experiment_name for record in met), None)


def may_start(session: Session, limits: StopConditions) -> bool:
    """Return whether a limit allows one more trial."""
    return not is_interrupted(session, limits) and not (
        limits.until_targets and trial_that_met_targets(session) is not None
    )


def next_claim(session: Session, scope: TrialFilter, limits: StopConditions) -> Claim | None:
    """Claim the next trial that a scope holds; None if a limit is reached or nothing is left."""
    if not may_start(session, limits):
        return None
    if not scope.search:
        return _claim(session, scope)
    return claim_with_top_up(session.study, session.context.folder, lambda: _claim(session, scope))


def trials_to_start(session: Session, scope: TrialFilter) -> int:
    """Return how many trials that a scope holds nobody works on, those that are not enqueued yet among them."""
    waiting = count_unclaimed(session.study, session.context.folder, scope.holds)
    return waiting + (count_unenqueued(session.study, latest_records(session.study)) if scope.search else 0)


def _claim(session: Session, scope: TrialFilter) -> Claim | None:
    # A search may have begun since this process did, and its trials are drawn as it says from their claim on.
    has_search = prepare_sampling(session.study, study_invariants(session.study).seed)
    claim = claim_next(
        session.study,
        session.context.folder,
        lambda record: scope.holds(record) and (has_search or record.kind is TrialKind.PRESET),
    )
    if claim is None and not has_search and search_settings(session.study) is not None:
        return _claim(session, scope)
    return claim
