import pytest
import yaml

from search_spaces import ConfigurationError, DataLoaderError
from search_spaces.errors import ProblemCollector


def test_problems_of_all_checks_are_raised_together_and_only_once():
    problems = ProblemCollector()
    assert not problems
    problems.add(["an option"])
    for error in (
        ConfigurationError(["one", "two"]),
        DataLoaderError("two"),
        FileNotFoundError("a file"),
        yaml.YAMLError("a text"),
    ):
        with problems.collect():
            raise error
    assert problems
    with pytest.raises(ConfigurationError) as caught:
        problems.raise_all()
    assert caught.value.problems == ("an option", "one", "two", "a file", "a text")
    assert str(caught.value.__cause__) == "one\ntwo"


def test_nothing_is_raised_without_a_problem():
    problems = ProblemCollector()
    with problems.collect():
        pass
    problems.raise_all()


def test_error_without_problems_is_raised_immediately():
    problems = ProblemCollector(lambda error: [str(error)] if isinstance(error, OSError) else [])
    with problems.collect():
        raise OSError("the disk")
    with pytest.raises(ZeroDivisionError), problems.collect():
        raise ZeroDivisionError
    with pytest.raises(ConfigurationError, match="the disk"):
        problems.raise_all()
