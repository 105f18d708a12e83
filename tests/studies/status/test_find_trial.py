from dataclasses import replace

import pytest

import studies
from search_spaces import ConfigurationError, TrainingConfig
from studies.trials.claims import claim_next


@pytest.fixture
def study(start, outcome):
    """Trials 0 to 2 are presets, one of them named "0"; 3 is a search trial; 4 is the retry of the failed trial 0."""
    study, folder = start({"baseline": TrainingConfig(), "0": TrainingConfig(seed=1), "one": TrainingConfig(seed=2)})
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=1))
    claim = claim_next(study, folder)
    claim.finish(replace(outcome, why_ended=studies.WhyEnded.FAILED))
    studies.retry_failed_trials(study, folder)
    return studies.load_study(folder.path)


def test_trial_is_found_by_name_or_number(study):
    expected = {"baseline": 4, "4": 4, "one": 2, "2": 2, "search_0003": 3, "3": 3, "0": 1, "1": 1}
    found = {word: studies.find_trial(*study, word) for word in expected}
    assert {word: record.number for word, (record, _) in found.items()} == expected
    assert all((row.number, row.name) == (record.number, record.experiment_name) for record, row in found.values())


def test_unknown_trial_is_refused_with_a_suggestion(study):
    expected = {
        "7": "trial: found '7'; expected a trial number from 0 to 4 or the name of a trial; "
        "list the trials with `khmer-tuner status --all`",
        "search_0004": "trial: found 'search_0004'; did you mean 'search_0003'?",
        "basline": "trial: found 'basline'; did you mean 'baseline'?",
    }
    for word, message in expected.items():
        with pytest.raises(ConfigurationError) as caught:
            studies.find_trial(*study, word)
        assert str(caught.value) == message


def test_trial_of_an_empty_study_is_refused(start):
    with pytest.raises(ConfigurationError, match=r"^trial: found '0'; the study has no trials yet; start it with "):
        studies.find_trial(*start(), "0")
