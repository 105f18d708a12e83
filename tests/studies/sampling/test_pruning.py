"""The pruners' decisions; the expected values were calculated by hand."""

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

import studies
from search_spaces import FloatRange, Parameter, SearchSpace
from studies.sampling.pruning import HyperbandPruner, Pruning, QuantilePruner, quantile_at
from studies.study.claiming import prepare_sampling
from studies.trials.claims import claim_next

RATE = Parameter("learning_rate", FloatRange(1e-4, 1e-2, log=True))

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def finished(reports, state=COMPLETE, kind=studies.TrialKind.SEARCH):
    """Create a finished trial with these reports."""
    return create_trial(
        state=state,
        value=reports[max(reports)] if state == COMPLETE else None,
        intermediate_values=reports,
        user_attrs={"kind": kind.value} | ({"experiment_name": "one"} if kind is studies.TrialKind.PRESET else {}),
    )


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return studies.open_storage(studies.default_storage_url(tmp_path_factory.mktemp("pruning")))


def add_completed(study, *values):
    for value in values:
        study.add_trial(finished({1: value}))


@pytest.mark.parametrize(
    ("reports", "state", "epoch", "expected"),
    [
        # A completed or pruned trial has its value at that epoch ...
        ({1: 0.1, 2: 0.3, 3: 0.5}, COMPLETE, 2, 0.3),
        ({1: 0.1, 2: 0.3, 3: 0.5}, PRUNED, 2, 0.3),
        # ... or its last value if it ended earlier.
        ({1: 0.1, 2: 0.3}, COMPLETE, 9, 0.3),
        ({1: 0.1}, PRUNED, 2, 0.1),
        ({1: 0.1, 4: 0.5}, COMPLETE, 3, 0.1),
        ({3: 0.5}, COMPLETE, 2, None),
        ({}, PRUNED, 2, None),
    ],
)
def test_value_of_another_trial_at_an_epoch(reports, state, epoch, expected):
    assert quantile_at([finished(reports, state)], epoch, 0.5, StudyDirection.MAXIMIZE) == expected


@pytest.mark.parametrize(
    ("mode", "values", "share", "expected"),
    [
        ("max", [0.3], 0.5, 0.3),
        ("max", [0.3], 0.25, 0.3),
        ("max", [0.1, 0.3], 0.5, 0.2),
        ("max", [0.8, 0.1, 0.2], 0.5, 0.2),
        ("max", [0.8, 0.1, 0.4, 0.2], 0.5, 0.3),
        # Five values have four intervals, so the quantile 0.25 is the second worst value.
        ("max", [0.5, 0.1, 0.4, 0.2, 0.3], 0.25, 0.2),
        ("max", [0.5, 0.1, 0.4, 0.2, 0.3], 0.75, 0.4),
        ("max", [0.1, 0.3], 0.25, 0.15),
        # Lower values are better.
        ("min", [0.8, 0.1, 0.2], 0.5, 0.2),
        ("min", [0.5, 0.1, 0.4, 0.2, 0.3], 0.25, 0.4),
        ("min", [0.5, 0.1, 0.4, 0.2, 0.3], 0.75, 0.2),
        ("min", [0.1, 0.3], 0.25, 0.25),
    ],
)
def test_quantile_counts_from_the_worst_value(mode, values, share, expected):
    direction = StudyDirection[f"{mode}imize".upper()]
    assert quantile_at([finished({1: value}) for value in values], 1, share, direction) == pytest.approx(expected)


@pytest.mark.parametrize(("parallelism", "best", "is_pruned"), [(2, 0.29, True), (2, 0.31, False), (1, 0.31, True)])
def test_trial_is_compared_with_the_presets_and_search_trials_of_its_visible_history(
    parallelism, best, is_pruned, storage
):
    pruner = QuantilePruner(Pruning(prune_share=0.5, prune_grace=1), parallelism)
    study = optuna.create_study(storage=storage, direction="maximize", pruner=pruner)
    study.add_trial(finished({1: 0.2}, kind=studies.TrialKind.PRESET))
    study.add_trial(finished({1: 0.4}, PRUNED))
    study.add_trial(finished({1: 0.9}, FAIL))
    study.add_trial(finished({1: 0.9}))  # trial 3, which trial 4 sees only with the parallelism 1
    trial = running_trial(study)
    trial.report(best, 1)
    assert trial.should_prune() is is_pruned  # the median is 0.3, or 0.4 with trial 3


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(
    ("pruning", "patience", "epoch", "best", "is_pruned"),
    [
        # The other trials have values from 0.1 to 0.5 in steps of 0.1. The grace period is the early stopping patience.
        (Pruning(), 2, 1, 0.0, False),
        (Pruning(), 2, 2, 0.0, True),
        (Pruning(), 2, 2, 0.33, True),
        (Pruning(), 2, 2, 0.35, False),
        (Pruning(), 3, 2, 0.0, False),
        # Epoch 3: the fraction 1 - 0.4 * (2/3)^2 = 0.82 is limited to 0.8 for five other trials; threshold 0.42.
        (Pruning(), 2, 3, 0.41, True),
        (Pruning(), 2, 4, 0.41, True),
        (Pruning(), 2, 99, 0.43, False),
        (Pruning(prune_grace=1), 9, 1, 0.0, True),
        (Pruning(prune_grace=4), 1, 3, 0.0, False),
        (Pruning(prune_share=0.25), 2, 2, 0.19, True),
        (Pruning(prune_share=0.25), 2, 2, 0.21, False),
        (Pruning(studies.PrunerName.NONE), 1, 9, 0.0, False),
    ],
)
def test_worse_trial_is_pruned_after_its_grace_period(pruning, patience, epoch, best, is_pruned, mode, storage):
    study = optuna.create_study(
        storage=storage, direction=f"{mode}imize", pruner=pruning.create_pruner(patience, num_epochs=99, parallelism=1)
    )
    sign = 1 if mode == "max" else -1
    add_completed(study, *(sign * value for value in (0.1, 0.2, 0.3, 0.4, 0.5)))
    trial = running_trial(study, patience=patience)
    trial.report(sign * best, epoch)
    assert trial.should_prune() is is_pruned


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(
    ("min_delta", "others", "is_pruned"),
    [
        (0.125, 0.75, True),
        (0.125, 0.625, False),  # worse by exactly min_delta
        (0.125, 0.6875, True),
        (0.125, 0.5, False),
        (0.125, 0.25, False),
        (0.0, 0.5, False),
        (0.0, 0.5 + 1e-9, True),
    ],
)
def test_trial_is_pruned_only_if_it_is_worse_by_more_than_min_delta(min_delta, others, is_pruned, mode, storage):
    sign = 1 if mode == "max" else -1
    study = optuna.create_study(
        storage=storage, direction=f"{mode}imize", pruner=QuantilePruner(Pruning(prune_grace=1), 1)
    )
    add_completed(study, sign * others)
    trial = running_trial(study, min_delta=min_delta)
    assert not trial.should_prune()  # without a report
    trial.report(sign * 0.5, 1)
    assert trial.should_prune() is is_pruned


def running_trial(study, patience=1, min_delta=0.0):
    trial = study.ask()
    trial.set_user_attr("kind", studies.TrialKind.SEARCH.value)
    trial.set_user_attr("config", {"early_stopping_patience": patience, "early_stopping_min_delta": min_delta})
    return trial


@pytest.mark.parametrize(("epoch", "share"), [(10, 0.6), (15, 1 - 0.4 * 4 / 9), (20, 0.9), (30, 1 - 0.4 / 9)])
def test_quantile_grows_with_the_epoch(epoch, share, storage):
    study = optuna.create_study(
        storage=storage, direction="maximize", pruner=QuantilePruner(Pruning(prune_grace=10), 1)
    )
    add_completed(study, *(number / 100 for number in range(101)))
    for behind, is_pruned in ((0.001, True), (-0.001, False)):
        trial = running_trial(study)
        trial.report(share - behind, epoch)
        assert trial.should_prune() is is_pruned
        study.tell(trial, state=FAIL)


@pytest.mark.parametrize(("others", "quantile"), [(1, 0.1), (2, 0.15), (4, 0.325), (40, 3.61)])
def test_quantile_is_limited_if_there_are_few_other_trials(others, quantile):
    trials = [finished({1: number / 10}) for number in range(1, others + 1)]
    assert quantile_at(trials, 1, 0.9, StudyDirection.MAXIMIZE) == pytest.approx(quantile)


def test_the_only_trial_is_never_pruned(storage):
    study = optuna.create_study(storage=storage, direction="maximize", pruner=QuantilePruner(Pruning(prune_grace=1), 1))
    trial = running_trial(study)
    trial.report(0.0, 1)
    assert not trial.should_prune()


@pytest.mark.parametrize(
    ("pruning", "kind"),
    [
        (Pruning(), QuantilePruner),
        (Pruning(studies.PrunerName.NONE), NopPruner),
        # A grace period longer than the training is limited to the training.
        (Pruning(studies.PrunerName.HYPERBAND, prune_grace=50), HyperbandPruner),
    ],
)
def test_pruner_name_selects_the_pruner(pruning, kind):
    assert isinstance(pruning.create_pruner(10, 40, 1), kind)


@pytest.mark.parametrize(("patience", "is_pruned"), [(3, True), (4, False)])
def test_hyperband_prunes_only_after_the_grace_period_of_the_trial(patience, is_pruned, storage):
    pruner = Pruning(studies.PrunerName.HYPERBAND).create_pruner(
        3, num_epochs=3, parallelism=1
    )  # one bracket, one rung
    study = optuna.create_study(storage=storage, direction="maximize", pruner=pruner)
    study.add_trial(finished({3: 0.9}))
    trial = running_trial(study, patience=patience)
    trial.report(0.5, 3)
    assert trial.should_prune() is is_pruned


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(
    ("others", "best", "is_pruned"),
    [
        ([], 0.0, False),
        # The best third of all values, including the trial's own, continues, but at least one.
        ([0.5], 0.4, True),
        ([0.5], 0.5, False),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 0.35, True),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 0.45, False),
    ],
)
def test_hyperband_continues_the_best_third_of_a_rung(others, best, is_pruned, mode, storage):
    sign = 1 if mode == "max" else -1
    pruner = HyperbandPruner(Pruning(studies.PrunerName.HYPERBAND), grace=1, num_epochs=1, parallelism=1)
    study = optuna.create_study(storage=storage, direction=f"{mode}imize", pruner=pruner)
    add_completed(study, *(sign * value for value in others))
    trial = running_trial(study)
    trial.report(sign * best, 1)
    assert trial.should_prune() is is_pruned
    assert trial.should_prune() is is_pruned  # the answer does not change


def test_hyperband_decisions_are_the_same_after_restarts(start, tmp_path):
    uninterrupted = hyperband_epochs(start, tmp_path / "uninterrupted", restart_after=())
    restarted = hyperband_epochs(start, tmp_path / "restarted", restart_after=(1, 3))
    assert restarted == uninterrupted
    # Trials of the three brackets are first compared after 1, 3 and 9 epochs.
    assert {1, 3, 9} <= set(uninterrupted)


def hyperband_epochs(start, path, restart_after):
    """Return the number of epochs of each search trial, with restarts after some epochs."""
    study, folder = start_hyperband(start, path)
    epochs = []
    while (claim := claim_next(study, folder)) is not None:
        for epoch in range(1, 10):
            # The order of the trials is reversed at the third epoch.
            rank = claim.record.number * 3 * (1 if epoch < 3 else -1) % 11
            if epoch not in study.get_trials(deepcopy=False)[claim.record.number].intermediate_values:
                claim.trial.report(0.1 * rank, epoch)
            if epoch in restart_after:  # before the decision
                claim.release()
                study, folder = start_hyperband(start, path)
                claim = claim_next(study, folder)
                assert claim is not None
            is_pruned = claim.trial.should_prune()
            if is_pruned:
                break
        epochs.append(epoch)
        study.tell(claim.trial, None if is_pruned else 0.5, state=PRUNED if is_pruned else COMPLETE)
        claim.release()
    return epochs


def start_hyperband(start, path):
    study, folder = start(path=path, space=SearchSpace((RATE,), base={"num_epochs": 9}))
    studies.add_search_trials(
        study, folder, studies.SearchRequest(pruner=studies.PrunerName.HYPERBAND, prune_grace=1, at_least=12)
    )
    assert prepare_sampling(study)
    return study, folder
