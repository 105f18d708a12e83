"""Every exception of the product that a user can meet.

::

    Exception
    ├── ValueError
    │   └── ConfigurationError      a file, option or name is wrong; found before anything runs
    ├── ExperimentFailedError       an experiment ended in an error while it ran
    ├── ModelCreationError          a model cannot be built (unknown name, impossible sizes)
    └── DataLoaderError             the dataset is missing, incomplete or unreadable

Besides these, a missing configuration file is Python's own ``FileNotFoundError``, and YAML that cannot be
parsed is ``yaml.YAMLError``.
"""

from __future__ import annotations

from collections.abc import Sequence


class _ProblemsError(Exception):
    """An error that tells all its problems at once, one per line.

    Args:
        problems: One message or several; their order is kept.

    Raises:
        ValueError: If there is no problem to tell.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        if not self.problems:
            raise ValueError(f"{type(self).__name__} needs at least one problem to tell")
        # The tuple, not the text, goes to Exception: pickling (DataLoader workers, process pools) replays it.
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ConfigurationError(_ProblemsError, ValueError):
    """A configuration file, an option or a name is missing, misspelt or senseless."""


class ExperimentFailedError(Exception):
    """An experiment ended in an error while it ran."""


class ModelCreationError(_ProblemsError):
    """A model cannot be built from its configuration."""


class DataLoaderError(_ProblemsError):
    """The dataset is missing, incomplete or cannot be read."""
