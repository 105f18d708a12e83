from dataclasses import replace

import pytest

from search_spaces.experiments.schema import Targets
from studies import (
    WhyEnded,
    load_study,
    save_targets,
    study_targets,
    target_verdicts,
    targets_met,
)

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
    verdicts = target_verdicts(outcome, ALL)
    assert list(verdicts) == list(Targets.model_fields)
    assert {name for name, met in verdicts.items() if not met} == missed
    assert targets_met(outcome, ALL) == (not missed)


@pytest.mark.parametrize("name", list(Targets.model_fields))
def test_unset_target_has_no_verdict(name, good):
    targets = Targets(**{name: getattr(ALL, name)})
    assert target_verdicts(good, targets) == {name: True}
    assert targets_met(good, targets)


def test_no_target_is_met_without_targets_or_outcome(good):
    assert (target_verdicts(good, Targets()), targets_met(good, Targets())) == ({}, False)
    assert set(target_verdicts(None, ALL).values()) == {False}
    assert not targets_met(None, ALL)


@pytest.mark.parametrize("why", list(WhyEnded))
def test_only_a_successful_trial_meets_targets(why, good):
    succeeded = why in (WhyEnded.MAX_EPOCHS, WhyEnded.EARLY_STOPPED, WhyEnded.PRUNED)
    assert targets_met(replace(good, why_ended=why), ALL) == succeeded
    assert set(target_verdicts(replace(good, why_ended=why), ALL).values()) == {succeeded}


def test_study_stores_the_latest_targets(start):
    study, folder = start()
    assert study_targets(study) == Targets()
    for targets in (ALL, Targets(sequence_accuracy=0.5)):
        save_targets(study, targets)
        assert study_targets(load_study(folder.path)[0]) == targets
