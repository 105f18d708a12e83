"""The options of a run: the study's location, the trials to train, and the stop conditions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from search_spaces import ConfigurationError, TrainingConfig
from search_spaces.diagnostics.wording import counted
from search_spaces.errors import ProblemCollector
from studies import (
    DEFAULT_STUDY_NAME,
    OutputFolder,
    SearchRequest,
    TrialKind,
    TrialRecord,
    check_search,
    check_storage_url,
    default_storage_url,
)
from tuner.cores import usable_cores
from tuner.session.output_paths import check_results_file


@dataclass(frozen=True)
class RunOptions:
    """The options of a run that trains the experiments of a file.

    Attributes:
        output_dir: The study's output folder.
        study_name: The study's name.
        storage: The study's storage URL; None for the SQLite file in the output folder.
        device: ``auto``, ``cpu`` or ``cuda`` for all trials; None for the device in each configuration.
        seed: The seed of all experiments; None for the seed in each configuration.
        results_file: The results file; None for a file in the working directory with the time in its name.
        space_file: The search space file; None for the search space of the study, or the built-in one in a new study.
        search: The search after the experiments; `search.at_least` counts all search trials in the study.
        until_targets: Whether to start no further trial after a trial has met the targets.
        workers: Number of processes that train in parallel.
        threads: Number of PyTorch threads of each worker, fixed when the training of the study starts; None for the
            number of the study, or PyTorch's threads divided by the workers in a new study.
    """

    output_dir: str | Path = TrainingConfig.output_dir
    study_name: str = DEFAULT_STUDY_NAME
    storage: str | None = None
    device: str | None = None
    seed: int | None = None
    results_file: str | None = None
    space_file: str | None = None
    search: SearchRequest = field(default_factory=SearchRequest)
    until_targets: bool = False
    workers: int = 1
    threads: int | None = None

    @property
    def storage_url(self) -> str:
        """The storage URL, or the default one if none is set."""
        return self.storage or default_storage_url(self.output_dir)

    def check(self) -> None:
        """Check all options except the search space; nothing is created.

        Raises:
            ConfigurationError: An option is invalid; all problems are reported together.
        """
        problems = ProblemCollector()
        with problems.collect():
            self.check_location()
        with problems.collect():
            check_results_file(self.results_file, self.output_dir)
        with problems.collect():
            check_search(self.search)
        with problems.collect():
            check_workers(self.workers, self.threads)
        problems.raise_all()

    def check_location(self) -> None:
        """Check the output folder, study name, storage and device; nothing is created.

        Raises:
            ConfigurationError: One of them is invalid; all problems are reported together.
        """
        problems = ProblemCollector()
        url = self.storage_url
        with problems.collect():
            check_storage_url(url, output_dir=self.output_dir)
        if problems:  # check the folder with the default URL instead of the invalid one
            url = default_storage_url(self.output_dir)
        with problems.collect():
            OutputFolder(self.output_dir).check(self.study_name, url)
        with problems.collect():
            check_device(self.device)
        problems.raise_all()


@dataclass(frozen=True)
class TrialFilter:
    """Selects the trials of a study that a command trains.

    Attributes:
        experiments: Names of presets; None for all presets of the study.
        search: Whether to train search trials, too.
        skipped: Numbers of trials that stay pending after an error, or because they wait for a trial that no worker
            trains; this command does not try them again.
    """

    experiments: frozenset[str] | None = None
    search: bool = True
    skipped: set[int] = field(default_factory=set, compare=False)

    @property
    def may_gain_trials(self) -> bool:
        """Whether trials added to the study later can match the filter."""
        return self.search or self.experiments is None

    def matches(self, record: TrialRecord) -> bool:
        """Return whether a trial matches the filter."""
        is_named = self.experiments is None or record.experiment_name in self.experiments
        return (self.search if record.kind is TrialKind.SEARCH else is_named) and record.number not in self.skipped


@dataclass(frozen=True)
class StopConditions:
    """Conditions that stop a command while trials are pending.

    Attributes:
        deadline: Value of `time.monotonic` after which trials are interrupted at the end of their epoch, or None.
        until_targets: Whether to start no further trial after a trial has met the study's targets.
    """

    deadline: float | None = None
    until_targets: bool = False

    @property
    def timed_out(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


def default_parallelism(workers: int) -> int:
    """Return the parallelism of a new search if none is requested.

    With twice the number of workers, a worker rarely has to wait for another one.
    """
    return 1 if workers == 1 else 2 * workers


def check_workers(workers: int, threads: int | None = None) -> None:
    """Check the number of workers, and that this machine has a core for each of their threads, if a number is given.

    Raises:
        ConfigurationError: There is no worker, or there are more threads than cores, which is many times slower.
    """
    if workers < 1:
        raise ConfigurationError(f"workers: found {workers}; expected a whole number above 0")
    cores = usable_cores()
    most = max(1, cores // workers)
    if threads is not None and not 1 <= threads <= most:
        shown = "" if workers == 1 else f" for each of {workers} workers"
        raise ConfigurationError(
            f"--threads: found {threads}{shown}; expected 1 to {most}, because this process may use "
            f"{counted(cores, 'core')}; use fewer threads or workers"
        )


def check_device(device: str | None) -> None:
    """Check that a device is available; None is the default device.

    Raises:
        ConfigurationError: PyTorch cannot use the device on this machine.
    """
    from tuner.training.device import setup_training_environment  # `enqueue` does not need PyTorch

    setup_training_environment(TrainingConfig(device=device or TrainingConfig.device))
