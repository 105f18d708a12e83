from dataclasses import replace

import pytest

import studies
from search_spaces.experiments.schema import Targets

ALL = Targets(character_accuracy=0.9, sequence_accuracy=0.8, training_time_per_epoch=60, convergence_epochs=10)


@pytest.fixture
def good(outcome):
    """An outcome whose metrics are exactly the targets `ALL`."""
    return replace(outcome, epoch_seconds_median=60.0, converged_epoch=10)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, set()),
        ({"best_val_char_accuracy": 0.899}, {"character_accuracy"}),
        ({"best_val_seq_accuracy": 0.0}, {"sequence_accuracy"}),
        ({"epoch_seconds_median": 60.1}, {"training_time_per_epoch"}),
        ({"epoch_seconds_median": None}, {"training_time_per_epoch"}),
        ({"converged_epoch": 11}, {"convergence_epochs"}),
        ({"converged_epoch": None, "best_val_char_accuracy": 0.5}, {"convergence_epochs", "character_accuracy"}),
    ],
)
def test_each_target_has_a_verdict(changes, missed, good):
    outcome = replace(good, **changes)
    verdicts = studies.target_verdicts(outcome, ALL)
    assert list(verdicts) == list(Targets.model_fields)
    assert {name for name, met in verdicts.items() if not met} == missed
    assert studies.targets_met(outcome, ALL) == (not missed)


@pytest.mark.parametrize("name", list(Targets.model_fields))
def test_unset_target_has_no_verdict(name, good):
    targets = Targets(**{name: getattr(ALL, name)})
    assert studies.target_verdicts(good, targets) == {name: True}
    assert studies.targets_met(good, targets)


def test_no_target_is_met_without_targets_or_outcome(good):
    assert (studies.target_verdicts(good, Targets()), studies.targets_met(good, Targets())) == ({}, False)
    assert set(studies.target_verdicts(None, ALL).values()) == {False}
    assert not studies.targets_met(None, ALL)


@pytest.mark.parametrize("why", list(studies.WhyEnded))
def test_only_a_successful_trial_meets_targets(why, good):
    succeeded = why in (studies.WhyEnded.MAX_EPOCHS, studies.WhyEnded.EARLY_STOPPED, studies.WhyEnded.PRUNED)
    assert studies.targets_met(replace(good, why_ended=why), ALL) == succeeded
    assert set(studies.target_verdicts(replace(good, why_ended=why), ALL).values()) == {succeeded}


def test_study_stores_the_latest_targets(start):
    study, folder = start()
    assert studies.study_targets(study) == Targets()
    for targets in (ALL, Targets(sequence_accuracy=0.5)):
        studies.save_targets(study, targets)
        assert studies.study_targets(studies.load_study(folder.path)[0]) == targets
