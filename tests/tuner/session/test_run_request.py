import pytest

from search_spaces import ConfigurationError, load_experiments
from studies import SearchRequest
from tuner.session.run_options import RunOptions
from tuner.session.run_request import RunRequest


def test_selected_experiments_have_the_options_and_the_order_of_their_file(write_config):
    file = load_experiments(write_config({"one": {}, "two": {}, "three": {}}, targets={"sequence_accuracy": 0.5}))
    request = RunRequest.from_file(file, ["three", "one"], RunOptions(seed=7, device="auto"))
    assert list(request.experiments) == ["one", "three"]
    assert {(config.seed, config.device) for config in request.experiments.values()} == {(7, "auto")}
    assert (list(request.file_order), request.targets.sequence_accuracy) == (["one", "two", "three"], 0.5)
    assert request.trial_filter.experiments == {"one", "three"}
    assert not request.may_generate  # the file names its dataset


def test_search_trials_are_trained_if_a_search_is_requested(write_config):
    file = load_experiments(write_config({"one": {}}))
    assert not RunRequest.from_file(file).trial_filter.search
    assert RunRequest.from_file(file, options=RunOptions(search=SearchRequest(at_least=1))).trial_filter.search


def test_empty_selection_is_rejected(write_config):
    with pytest.raises(ConfigurationError, match="experiments: found an empty list of names"):
        RunRequest.from_file(load_experiments(write_config({"one": {}})), [])


def test_search_space_is_checked_against_the_defined_models(write_config, write_space):
    file = load_experiments(write_config({"one": {}}))
    assert RunRequest.from_file(file).space is None
    space = RunRequest.from_file(file, options=RunOptions(space_file=str(write_space()))).space
    assert space is not None
    assert space.base == {"num_epochs": 2}
    wrong = RunOptions(space_file=str(write_space(model_name=["tiny", "huge"])))
    with pytest.raises(ConfigurationError, match=r"'huge'; expected a defined model"):
        RunRequest.from_file(file, options=wrong)
