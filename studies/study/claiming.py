"""The choice of a worker's next trial, which combines the sampler, the search budget and claims."""

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
    """Claim the next trial; enqueue search trials from the budget if no trial is pending.

    Another worker may claim the trials that were just enqueued, or enqueue more trials after this worker has found
    none. So the loop ends only after a failed claim during which the number of search trials did not change.

    Args:
        study: The study from `create_or_join_study`; this call sets its sampler and pruner.
        folder: The study's output folder.
        matches: Returns whether a trial may be claimed.
        with_search: Whether search trials may be claimed, and enqueued within the budget.

    Returns:
        The claim, or None if every matching trial is finished or held by a worker.
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
    """Count the pending trials that no worker holds, including search trials that are not enqueued yet."""
    waiting = count_unclaimed(study, folder, matches)
    return waiting + (count_unenqueued(study, latest_records(study)) if with_search else 0)


def prepare_sampling(study: optuna.Study) -> bool:
    """Set the sampler and the pruner of the study's search.

    Returns:
        Whether the study has a search, so that search trials may be claimed.
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
    # Another process may have started the search since the last call.
    has_search = prepare_sampling(study)
    claim = claim_next(
        study, folder, lambda record: matches(record) and (has_search or record.kind is TrialKind.PRESET)
    )
    if claim is None and not has_search and search_settings(study) is not None:
        return _claim_prepared(study, folder, matches)
    return claim
