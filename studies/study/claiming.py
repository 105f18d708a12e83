"""Which trial a worker trains next: the one place where sampler, search budget and claims meet."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from studies.sampling.samplers import StatelessSampler
from studies.storage.output_folder import OutputFolder
from studies.study.lifecycle import study_invariants
from studies.study.presets import fixed_space, require_same_distributions, study_space
from studies.study.search_budget import count_unenqueued, search_records, search_settings, top_up
from studies.trials.claims import Claim, claim_next, count_unclaimed
from studies.trials.record import TrialKind, TrialRecord
from studies.trials.records import latest_records

RecordPredicate = Callable[[TrialRecord], bool]


def claim_next_trial(
    study: optuna.Study,
    folder: OutputFolder,
    matches: RecordPredicate = lambda record: True,
    *,
    with_search: bool = True,
) -> Claim | None:
    """Claim the next trial, with the study's sampler and pruner in place; top up the search budget if none is left.

    Another worker may claim what was just enqueued, and may enqueue more just after nothing could be claimed. So no
    trial is left only if none could be claimed and no search trial has been enqueued since.

    Args:
        study: From `create_or_join_study`.
        folder: The study's folder.
        matches: Which trials may be claimed.
        with_search: Whether search trials are among them, so that the budget is topped up.

    Returns:
        The claim, or None if no trial is left that no worker trains.
    """
    known = -1
    while True:
        claim = _claim_prepared(study, folder, matches)
        if claim is not None or not with_search:
            return claim
        enqueued = top_up(study, folder)
        count = len(search_records(study))
        if not enqueued and count == known:
            return None
        known = count


def count_claimable(study: optuna.Study, folder: OutputFolder, matches: RecordPredicate, *, with_search: bool) -> int:
    """Return the number of trials that no worker trains, those that are not enqueued yet among them; only reads."""
    waiting = count_unclaimed(study, folder, matches)
    return waiting + (count_unenqueued(study, latest_records(study)) if with_search else 0)


def prepare_sampling(study: optuna.Study) -> bool:
    """Give a study opened for work the sampler and the pruner that its search was started with.

    Returns:
        Whether it has a search, so that search trials may be claimed.
    """
    if (space := fixed_space(study)) is not None:
        require_same_distributions(study, space)
    settings = search_settings(study)
    if settings is None:
        return False
    study.sampler = StatelessSampler(settings.sampler, study_invariants(study).seed, study, lambda: study_space(study))
    base = settings.start
    study.pruner = settings.pruning.create_pruner(base.early_stopping_patience, base.num_epochs)
    return True


def _claim_prepared(study: optuna.Study, folder: OutputFolder, matches: RecordPredicate) -> Claim | None:
    # A search may have started since this process did; from then on its trials may be claimed.
    has_search = prepare_sampling(study)
    claim = claim_next(
        study, folder, lambda record: matches(record) and (has_search or record.kind is TrialKind.PRESET)
    )
    if claim is None and not has_search and search_settings(study) is not None:
        return _claim_prepared(study, folder, matches)
    return claim
