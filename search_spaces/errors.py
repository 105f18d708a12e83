"""The exceptions that this program raises for users, and the collector that reports several of them together.

::

    Exception
    ├── ValueError
    │   └── ConfigurationError      a file, option or name is missing or invalid; raised before anything runs
    ├── ExperimentFailedError       an experiment failed while it was running
    ├── ModelCreationError          a model cannot be built (unknown name, impossible sizes)
    └── DataLoaderError             the dataset is missing, incomplete or unreadable

A missing configuration file raises Python's ``FileNotFoundError``; invalid YAML raises ``yaml.YAMLError``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import yaml


class _ProblemsError(Exception):
    """An error whose text lists all problems, one per line.

    Args:
        problems: One message or several, in the order of the text.

    Raises:
        ValueError: `problems` is empty.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        if not self.problems:
            raise ValueError(f"{type(self).__name__} needs at least one problem")
        # Exception gets the tuple, not the text, since unpickling (DataLoader workers) calls __init__ with it.
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ConfigurationError(_ProblemsError, ValueError):
    """A configuration file, an option or a name is missing or invalid.

    Attributes:
        problems: One message for each problem.

    Example::

        from tuner import ConfigurationError, HyperparameterTuner

        try:
            HyperparameterTuner().validate_config({"experiments": {"one": {"training": {"batch_size": 0}}}})
        except ConfigurationError as error:
            for problem in error.problems:
                print(problem)
    """


class ExperimentFailedError(Exception):
    """An experiment failed while it was running.

    Example::

        from tuner import ExperimentFailedError, HyperparameterTuner

        tuner = HyperparameterTuner("experiments.yaml")
        too_fast = {"optimizer": {"type": "adamw", "learning_rate": 10, "weight_decay": 10}}
        try:
            tuner.run_single_experiment("too_fast", tuner.config["experiments"]["one"] | too_fast)
        except ExperimentFailedError as error:
            print(error)
    """


class ModelCreationError(_ProblemsError):
    """A model cannot be built from its configuration.

    Example::

        from tuner import ModelCreationError, TrainingConfig, create_model_from_config

        try:
            create_model_from_config(TrainingConfig(model_name="huge"))
        except ModelCreationError as error:
            print(error)
    """


class DataLoaderError(_ProblemsError):
    """The dataset is missing, incomplete or unreadable.

    Example::

        from tuner import DataLoaderError, TrainingConfig, create_data_loaders

        try:
            create_data_loaders(TrainingConfig(metadata_path="missing/metadata.yaml"))
        except DataLoaderError as error:
            print(error)
    """


def known_problems(error: Exception) -> Sequence[str]:
    """Return one text per problem of an error that is reported to users; () for any other error."""
    if isinstance(error, ConfigurationError | DataLoaderError | ModelCreationError):
        return error.problems
    return (str(error),) if isinstance(error, ExperimentFailedError | FileNotFoundError | yaml.YAMLError) else ()


class ProblemCollector:
    """A collector for the problems of several checks, without duplicates."""

    def __init__(self, problems_of: Callable[[Exception], Sequence[str]] = known_problems) -> None:
        """Create a collector without problems.

        Args:
            problems_of: Returns the problems of an error; () if the error must be raised, not collected.
        """
        self._problems: dict[str, None] = {}
        self._problems_of = problems_of
        self._cause: Exception | None = None

    def __bool__(self) -> bool:
        return bool(self._problems)

    def add(self, problems: Iterable[str]) -> None:
        """Add problems that were found without an exception, one text per problem."""
        self._problems |= dict.fromkeys(problems)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Collect the problems of an error raised in the ``with`` block; an error without problems is raised again."""
        try:
            yield
        except Exception as error:
            found = self._problems_of(error)
            if not found:
                raise
            self.add(found)
            self._cause = self._cause or error

    def raise_all(self) -> None:
        """Raise one exception with all collected problems.

        Raises:
            ConfigurationError: At least one problem was collected.
        """
        if self._problems:
            raise ConfigurationError(tuple(self._problems)) from self._cause
