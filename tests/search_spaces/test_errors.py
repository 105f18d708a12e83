import pickle

import pytest

from search_spaces import ConfigurationError, DataLoaderError, ExperimentFailedError, ModelCreationError

WITH_PROBLEMS = [ConfigurationError, ModelCreationError, DataLoaderError]


@pytest.mark.parametrize("kind", WITH_PROBLEMS)
def test_text_has_one_problem_per_line(kind):
    assert str(kind(["first", "second"])) == "first\nsecond"
    assert kind("only").problems == ("only",)


@pytest.mark.parametrize("kind", WITH_PROBLEMS)
def test_problems_are_kept_by_pickling(kind):
    copy = pickle.loads(pickle.dumps(kind(["first", "second"])))
    assert type(copy) is kind
    assert copy.problems == ("first", "second")


@pytest.mark.parametrize("kind", WITH_PROBLEMS)
def test_error_without_problems_is_rejected(kind):
    with pytest.raises(ValueError, match="at least one problem"):
        kind([])


def test_only_configuration_errors_are_value_errors():
    assert issubclass(ConfigurationError, ValueError)
    for kind in (ExperimentFailedError, ModelCreationError, DataLoaderError):
        assert not issubclass(kind, ValueError)
