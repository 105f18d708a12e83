"""Running several checks so that all problems are reported together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import yaml

from search_spaces.errors import ConfigurationError, DataLoaderError, ExperimentFailedError, ModelCreationError


def known_problems(error: Exception) -> Sequence[str]:
    """Return the problems that an error of the product reports, one text each; none for any other error."""
    if isinstance(error, ConfigurationError | DataLoaderError | ModelCreationError):
        return error.problems
    return (str(error),) if isinstance(error, ExperimentFailedError | FileNotFoundError | yaml.YAMLError) else ()


class ProblemCollector:
    """Collects the problems of several checks, each problem once."""

    def __init__(self, problems_of: Callable[[Exception], Sequence[str]] = known_problems) -> None:
        """Start without problems.

        Args:
            problems_of: Returns the problems that an error reports; none if it is not to be collected.
        """
        self._problems: dict[str, None] = {}
        self._problems_of = problems_of
        self._cause: Exception | None = None

    def __bool__(self) -> bool:
        return bool(self._problems)

    def add(self, problems: Iterable[str]) -> None:
        """Add problems that were found without an error, one text each."""
        self._problems |= dict.fromkeys(problems)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Run a check: the body of the ``with`` statement. Errors that report no problems are raised at once."""
        try:
            yield
        except Exception as error:
            found = self._problems_of(error)
            if not found:
                raise
            self.add(found)
            self._cause = self._cause or error

    def raise_all(self) -> None:
        """Raise all problems together.

        Raises:
            ConfigurationError: There is a problem.
        """
        if self._problems:
            raise ConfigurationError(tuple(self._problems)) from self._cause
