"""Which trials end because of the others; the values are worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import optuna
import pytest
from optuna.pruners import HyperbandPruner, NopPruner
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search_spaces import FloatRange, Parameter, SearchSpace
from studies import (
    Claim,
    OutputFolder,
    PrunerName,
    Pruning,
    SearchRequest,
    TrialKind,
    add_search_trials,
    claim_next,
    default_storage_url,
    open_storage,
    prepare_sampling,
)
from studies.sampling.pruning import value_to_keep_up_with

Start = Callable[..., tuple[optuna.Study, OutputFolder]]
Reports = dict[int, float]

RATE = Parameter("learning_rate", FloatRange(1e-4, 1e-2, log=True))

COMPLETE, PRUNED, FAIL, RUNNING, WAITING = (
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.FAIL,
    TrialState.RUNNING,
    TrialState.WAITING,
)


def add(
    study: optuna.Study, reports: Reports, state: TrialState = COMPLETE, kind: str | None = TrialKind.SEARCH.value
) -> None:
    """Put a trial into the study as it stands after its reports."""
    study.add_trial(
        optuna.trial.create_trial(
            state=state,
            value=reports[max(reports)] if state == COMPLETE else None,
            intermediate_values=reports,
            user_attrs={} if kind is None else {"kind": kind},
        )
    )


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> RDBStorage:
    return open_storage(default_storage_url(tmp_path_factory.mktemp("comparisons")))


def add_ended(study: optuna.Study, *values: float) -> None:
    for value in values:
        add(study, {1: value})


@pytest.mark.parametrize(
    ("reports", "state", "epoch", "counts_with"),
    [
        # Those that have ended count with what they had reached by then ...
        ({1: 0.1, 2: 0.3, 3: 0.5}, COMPLETE, 2, 0.3),
        ({1: 0.1, 2: 0.3, 3: 0.5}, PRUNED, 2, 0.3),
        # ... and after their end with their last value.
        ({1: 0.1, 2: 0.3}, COMPLETE, 9, 0.3),
        ({1: 0.1}, PRUNED, 2, 0.1),
        ({1: 0.1, 4: 0.5}, COMPLETE, 3, 0.1),
        ({3: 0.5}, COMPLETE, 2, None),
        ({}, PRUNED, 2, None),
        # Running ones count once they are as far.
        ({1: 0.1, 2: 0.3}, RUNNING, 2, 0.3),
        ({1: 0.1, 2: 0.3, 3: 0.5}, RUNNING, 2, 0.3),
        ({1: 0.1, 2: 0.3}, RUNNING, 3, None),
        ({}, RUNNING, 1, None),
        # The others say nothing.
        ({1: 0.1, 2: 0.3}, FAIL, 2, None),
        ({}, WAITING, 1, None),
    ],
)
@pytest.mark.parametrize("kind", list(TrialKind))
def test_another_trial_counts_with_what_it_had_reached(
    kind: TrialKind, reports: Reports, state: TrialState, epoch: int, counts_with: float | None, storage: RDBStorage
) -> None:
    study = optuna.create_study(storage=storage)
    add(study, reports, state, kind.value)
    assert value_to_keep_up_with(study, 99, epoch, 0.5) == counts_with


@pytest.mark.parametrize(
    ("mode", "values", "share", "expected"),
    [
        ("max", [0.3], 0.5, 0.3),
        ("max", [0.3], 0.25, 0.3),
        ("max", [0.1, 0.3], 0.5, 0.2),
        ("max", [0.8, 0.1, 0.2], 0.5, 0.2),
        ("max", [0.8, 0.1, 0.4, 0.2], 0.5, 0.3),
        # The worst quarter is below the first of four steps from the worst to the best.
        ("max", [0.5, 0.1, 0.4, 0.2, 0.3], 0.25, 0.2),
        ("max", [0.5, 0.1, 0.4, 0.2, 0.3], 0.75, 0.4),
        ("max", [0.1, 0.3], 0.25, 0.15),
        # A lower value is a better one.
        ("min", [0.8, 0.1, 0.2], 0.5, 0.2),
        ("min", [0.5, 0.1, 0.4, 0.2, 0.3], 0.25, 0.4),
        ("min", [0.5, 0.1, 0.4, 0.2, 0.3], 0.75, 0.2),
        ("min", [0.1, 0.3], 0.25, 0.25),
    ],
)
def test_the_value_leaves_a_share_of_the_others_behind(
    mode: str, values: Sequence[float], share: float, expected: float, storage: RDBStorage
) -> None:
    study = optuna.create_study(storage=storage, direction=f"{mode}imize")
    add_ended(study, *values)
    assert value_to_keep_up_with(study, 99, 1, share) == pytest.approx(expected)


def test_a_trial_is_not_compared_with_itself_nor_with_other_programs_trials(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage)
    add(study, {1: 0.9}, RUNNING)
    add(study, {1: 0.8}, kind=None)
    assert value_to_keep_up_with(study, 0, 1, 0.5) is None
    add(study, {1: 0.2})
    assert value_to_keep_up_with(study, 0, 1, 0.5) == 0.2


def test_all_kinds_of_others_count_together(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage)
    add(study, {1: 0.2, 2: 0.4}, COMPLETE, TrialKind.PRESET.value)
    add(study, {1: 0.3}, PRUNED)
    add(study, {1: 0.9, 2: 0.9}, FAIL)
    add(study, {1: 0.5}, RUNNING)
    add(study, {1: 0.1, 2: 0.6}, RUNNING)
    assert value_to_keep_up_with(study, 99, 1, 0.5) == pytest.approx((0.2 + 0.3) / 2)
    assert value_to_keep_up_with(study, 99, 2, 0.5) == 0.4


@pytest.mark.parametrize(
    ("pruning", "patience", "epoch", "best", "hopeless"),
    [
        # The others stand at 0.1, 0.2, 0.3, 0.4 and 0.5; early stopping's patience is the grace.
        (Pruning(), 2, 1, 0.0, False),
        (Pruning(), 2, 2, 0.0, True),
        (Pruning(), 2, 2, 0.33, True),
        (Pruning(), 2, 2, 0.35, False),
        (Pruning(), 3, 2, 0.0, False),
        # Half as long again: 1 - 0.4 * (2/3)^2 of them, but of five others no more than four fifths: 0.42.
        (Pruning(), 2, 3, 0.41, True),
        (Pruning(), 2, 4, 0.41, True),
        (Pruning(), 2, 99, 0.43, False),
        (Pruning(grace=1), 9, 1, 0.0, True),
        (Pruning(grace=4), 1, 3, 0.0, False),
        (Pruning(share=0.25), 2, 2, 0.19, True),
        (Pruning(share=0.25), 2, 2, 0.21, False),
        (Pruning(PrunerName.NONE), 1, 9, 0.0, False),
    ],
)
def test_a_trial_is_hopeless_once_its_grace_is_over_and_it_is_worse(
    pruning: Pruning, patience: int, epoch: int, best: float, hopeless: bool, start: Start
) -> None:
    study, folder = start()
    add_ended(study, 0.1, 0.2, 0.3, 0.4, 0.5)
    with search_trial(study, folder) as claim:
        claim.trial.report(best, epoch)
        assert pruning.should_prune(claim.trial, epoch, patience, best.__lt__) is hopeless


@pytest.mark.parametrize(("epoch", "share"), [(10, 0.6), (15, 1 - 0.4 * 4 / 9), (20, 0.9), (30, 1 - 0.4 / 9)])
def test_the_longer_a_trial_has_run_the_more_it_must_keep_up_with(epoch: int, share: float) -> None:
    assert Pruning().share_at(epoch, grace=10) == pytest.approx(share)


@pytest.mark.parametrize(("others", "rival"), [(1, 0.1), (2, 0.15), (4, 0.325), (40, 3.61)])
def test_few_others_ask_for_less(others: int, rival: float, storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage, direction="maximize")
    for number in range(1, others + 1):
        add(study, {1: number / 10})
    assert value_to_keep_up_with(study, 99, 1, 0.9) == pytest.approx(rival)


def test_who_is_alone_is_never_hopeless(start: Start) -> None:
    study, folder = start()
    with search_trial(study, folder) as claim:
        claim.trial.report(0.0, 1)
        assert not Pruning(grace=1).should_prune(claim.trial, 1, 1, lambda rival: True)


def search_trial(study: optuna.Study, folder: OutputFolder) -> Claim:
    add_search_trials(study, folder, SearchRequest(more=1))
    claim = claim_next(study, folder)
    assert claim is not None
    return claim


@pytest.mark.parametrize("pruner", [PrunerName.QUANTILE, PrunerName.NONE])
def test_optuna_itself_prunes_only_by_hyperband(pruner: PrunerName) -> None:
    assert isinstance(Pruning(pruner).optuna_pruner(10, 40), NopPruner)
    # A grace beyond the end is a grace up to the end.
    assert isinstance(Pruning(PrunerName.HYPERBAND, grace=50).optuna_pruner(10, 40), HyperbandPruner)


def test_hyperband_answers_the_same_after_every_restart(start: Start, tmp_path: Path) -> None:
    calm = hyperband_epochs(start, tmp_path / "calm", restart_after=())
    restless = hyperband_epochs(start, tmp_path / "restless", restart_after=(1, 3))
    assert restless == calm
    # Rungs are at 1, 3 and 9 epochs.
    assert calm == [4, 9, 9, 3, 1, 9]


def hyperband_epochs(start: Start, path: Path, restart_after: Collection[int]) -> list[int]:
    """Return how many epochs each search trial had, the first of which stops early, with restarts after some epochs."""
    study, folder = begin_hyperband(start, path)
    epochs: list[int] = []
    while (claim := claim_next(study, folder)) is not None:
        for epoch in range(1, 10):
            # From the third epoch on the best are the worst.
            rank = claim.record.number * 3 * (1 if epoch < 3 else -1) % 11
            claim.trial.report(0.1 * rank, epoch)
            ends = HYPERBAND.should_prune(claim.trial, epoch, 99, lambda rival: False)
            if ends or (claim.record.number == 0 and epoch == 4):
                break
            if epoch in restart_after:
                claim.release()
                study, folder = begin_hyperband(start, path)
                claim = claim_next(study, folder)
                assert claim is not None
        epochs.append(epoch)
        study.tell(claim.trial, None if ends else 0.5, state=PRUNED if ends else COMPLETE)
        claim.release()
    return epochs


HYPERBAND = Pruning(PrunerName.HYPERBAND, grace=1)


def begin_hyperband(start: Start, path: Path) -> tuple[optuna.Study, OutputFolder]:
    study, folder = start(path=path, space=SearchSpace((RATE,), base={"num_epochs": 9}))
    add_search_trials(study, folder, SearchRequest(pruner=PrunerName.HYPERBAND, prune_grace=1, at_least=6))
    prepare_sampling(study, 0)
    return study, folder
