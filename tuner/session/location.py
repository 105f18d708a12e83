"""Where a study is kept, checked before anything is created."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from search_spaces import ConfigurationError, TrainingConfig
from studies import OutputFolder, check_storage_url, default_storage_url
from tuner.training.device import setup_training_environment


@dataclass(frozen=True)
class StudyLocation:
    """Where a study is kept, and on what it trains.

    Attributes:
        output_dir: The study's folder.
        study_name: The study's name.
        storage: Its storage URL; None for the SQLite file in the folder.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    output_dir: Path
    study_name: str
    storage: str | None
    device: str

    @property
    def storage_url(self) -> str:
        """The storage URL, the default filled in."""
        return self.storage or default_storage_url(self.output_dir)

    def check(self) -> None:
        """Check all of it without creating anything.

        Raises:
            ConfigurationError: Something cannot be used; all problems at once.
        """
        url = self.storage_url
        try:
            check_storage_url(url, output_dir=self.output_dir)
            problems: list[str] = []
        except ConfigurationError as error:
            # The folder is looked at all the same, as if no URL was given: this one cannot be compared.
            problems, url = list(error.problems), default_storage_url(self.output_dir)
        checks: list[Callable[[], object]] = [
            lambda: OutputFolder(self.output_dir).check(self.study_name, url),
            lambda: setup_training_environment(TrainingConfig(device=self.device)),
        ]
        for check in checks:
            try:
                check()
            except ConfigurationError as error:
                problems += [problem for problem in error.problems if problem not in problems]
        if problems:
            raise ConfigurationError(problems)
