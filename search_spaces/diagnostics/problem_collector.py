"""The collector with which several checks report all their problems together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import yaml

from search_spaces.errors import ConfigurationError, DataLoaderError, ExperimentFailedError, ModelCreationError


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
