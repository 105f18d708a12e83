"""The choice of a worker's next trial, which combines the sampler, the search budget, the parallelism and claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna

from search_spaces.diagnostics.names import search_trial_name
from studies.sampling.samplers import StatelessSampler
from studies.storage.output_folder import OutputFolder
from studies.study.lifecycle import study_invariants
from studies.study.presets import fixed_space, require_same_distributions, study_space
from studies.study.search_budget import count_unenqueued, search_records, search_settings, top_up
from studies.study.warm_start import study_prior
from studies.trials.claims import Claim, claim_next, count_unclaimed
from studies.trials.leases import leases_of
from studies.trials.record import TrialKind, TrialPhase, TrialRecord, own_records, without_superseded

RecordPredicate = Callable[[TrialRecord], bool]
_PENDING = (TrialPhase.WAITING, TrialPhase.RUNNING)


@dataclass(frozen=True)
class HeldBack:
    """A waiting search trial that may not start before an earlier trial has finished.

    Attributes:
        name: The search trial's name.
        awaited: Name of the first unfinished trial of the study.
        is_blocked: Whether no worker seems to train the awaited trial: the caller may not claim it, and no trial of the
            study is being trained.
    """

    name: str
    awaited: str
    is_blocked: bool


def claim_next_trial(
    study: optuna.Study,
    folder: OutputFolder,
    matches: RecordPredicate = lambda record: True,
    *,
    with_search: bool = True,
) -> Claim | None:
    """Claim the next trial; enqueue search trials from the budget if no trial is pending.

    Search trial n is not claimed before all trials numbered n - P and below have finished, where P is the parallelism.

    Another worker may claim the trials that were just enqueued, or enqueue more trials after this worker has found
    none. So the loop ends only after a failed claim during which the number of search trials did not change.

    Args:
        study: The study from `create_or_join_study`; this call sets its sampler and pruner.
        folder: The study's output folder.
        matches: Returns whether a trial may be claimed.
        with_search: Whether search trials may be claimed, and enqueued within the budget.

    Returns:
        The claim, or None if every matching trial is finished, held by a worker or held back (`find_held_back`).
    """
    previous_count = -1
    while True:
        claim = _claim_prepared(study, folder, matches)
        if claim is not None or not with_search:
            return claim
        enqueued = top_up(study, folder)
        count = len(search_records(study))
        if not enqueued and count == previous_count:
            return None
        previous_count = count


def count_claimable(study: optuna.Study, folder: OutputFolder, matches: RecordPredicate, *, with_search: bool) -> int:
    """Count the pending trials that a worker could start now, including search trials that are not enqueued yet."""
    settings, records = search_settings(study), own_records(study)
    limit = _search_limit(records, None if settings is None else settings.parallelism)
    count = count_unclaimed(study, folder, lambda record: matches(record) and _may_start(record, limit))
    if with_search:
        unenqueued = count_unenqueued(study, without_superseded(records))
        count += min(unenqueued, max(0, limit - _next_number(records)))
    return count


def find_held_back(study: optuna.Study, folder: OutputFolder, matches: RecordPredicate) -> HeldBack | None:
    """Return the first matching search trial that waits for an earlier trial; None if no trial is held back.

    This includes search trials of the budget that are not enqueued yet.
    """
    settings, records = search_settings(study), own_records(study)
    if settings is None:
        return None
    limit = _search_limit(records, settings.parallelism)
    pending = [record for record in records if record.phase in _PENDING]
    waiting = [record for record in pending if record.phase is TrialPhase.WAITING and matches(record)]
    name = next((record.experiment_name for record in waiting if not _may_start(record, limit)), None)
    if name is None and count_unenqueued(study, without_superseded(records)) and _next_number(records) >= limit:
        name = search_trial_name(_next_number(records))
    if name is None or not pending:
        return None
    holders = leases_of(study, folder).holders(record for record in pending if record.phase is TrialPhase.RUNNING)
    is_trained = any(holder is not None for holder in holders.values())
    return HeldBack(name, pending[0].experiment_name, not (matches(pending[0]) or is_trained))


def prepare_sampling(study: optuna.Study) -> int | None:
    """Set the sampler and the pruner of the study's search.

    Returns:
        The parallelism; None without a search.
    """
    if (space := fixed_space(study)) is not None:
        require_same_distributions(study, space)
    settings = search_settings(study)
    if settings is None:
        return None
    parallelism, seed, base = settings.parallelism, study_invariants(study).seed, settings.start
    prior = study_prior(study).observations
    study.sampler = StatelessSampler(settings.sampler, seed, parallelism, lambda: study_space(study), prior)
    study.pruner = settings.pruning.create_pruner(base.early_stopping_patience, base.num_epochs, parallelism)
    return parallelism


def _claim_prepared(study: optuna.Study, folder: OutputFolder, matches: RecordPredicate) -> Claim | None:
    # Another process may have started the search since the last call.
    parallelism = prepare_sampling(study)
    limit = _search_limit(own_records(study), parallelism)
    claim = claim_next(study, folder, lambda record: matches(record) and _may_start(record, limit))
    if claim is None and parallelism is None and prepare_sampling(study) is not None:
        return _claim_prepared(study, folder, matches)
    return claim


def _search_limit(records: Sequence[TrialRecord], parallelism: int | None) -> int:
    """Return the number from which search trials are held back: all of them without a search."""
    if parallelism is None:
        return 0
    pending = (record.number for record in records if record.phase in _PENDING)
    return next(pending, _next_number(records)) + parallelism


def _next_number(records: Sequence[TrialRecord]) -> int:
    """Return the lowest number that the next trial can have, for the records of all trials in order of number."""
    return records[-1].number + 1 if records else 0


def _may_start(record: TrialRecord, limit: int) -> bool:
    return record.kind is TrialKind.PRESET or record.number < limit
