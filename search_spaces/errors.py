"""The exceptions that this program raises for users.

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

from collections.abc import Sequence


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
