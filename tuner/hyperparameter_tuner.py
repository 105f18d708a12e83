"""The documented entry point for programs: experiments from a file, trained as trials of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search_spaces import (
    ConfigurationError,
    ExperimentFailedError,
    ExperimentFile,
    TrainingConfig,
    load_experiments,
    parse_experiments,
)
from studies import (
    DEFAULT_STUDY_NAME,
    SearchRequest,
    check_search,
    default_results_name,
    load_study,
    render_results,
)
from tuner.display import Display
from tuner.session.location import StudyLocation
from tuner.session.output_paths import check_results_path, timestamp
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.study_setup import load_space, with_overrides
from tuner.workers.auto_count import WorkerCount
from tuner.workers.run_study import run_study, write_results


class HyperparameterTuner:
    """Trains the experiments of a configuration file, each exactly once in the study of an output folder.

    Attributes:
        config_file: The file, as given.
        config: Its content as plain data.
        stopped: Whether the latest run was asked to stop (`khmer-tuner stop`); the same call goes on with it.
    """

    def __init__(
        self,
        config_file: str = "config/phase3_simple_configs.yaml",
        *,
        output_dir: str = TrainingConfig.output_dir,
        study_name: str = DEFAULT_STUDY_NAME,
        storage: str | None = None,
        device: str | None = None,
        seed: int | None = None,
        results_file: str | None = None,
        space_file: str | None = None,
        search: SearchRequest | None = None,
        until_targets: bool = False,
        workers: WorkerCount = 1,
        display: Display | None = None,
    ) -> None:
        """Read and check a configuration file; nothing is created.

        Args:
            config_file: The experiments; looked up in the working directory, then in the installed package.
            output_dir: The study's folder.
            study_name: The study's name.
            storage: The study's storage URL; the default is an SQLite file in the folder.
            device: ``auto``, ``cpu`` or ``cuda`` for all experiments, whatever the file says.
            seed: The seed of all experiments, whatever the file says.
            results_file: Where results go; the default is named after the time, in the working directory.
            space_file: What a search may vary; the default is the study's, else the shipped one.
            search: An open search after the experiments of `run_experiments`; its `at_least` says how many trials.
            until_targets: Whether no further trial is begun once one has met the file's targets.
            workers: Processes that train side by side; ``auto`` measures how many are fastest.
            display: Who is told of progress; by default nobody.

        Raises:
            FileNotFoundError: There is no such file.
            yaml.YAMLError: It is not YAML.
            ConfigurationError: Something in it is wrong; all problems at once.
        """
        self.config_file = config_file
        self._file = load_experiments(config_file)
        self.config = self._file.config
        self._output_dir = Path(output_dir)
        self._study_name = study_name
        self._storage = storage
        self._device = device
        self._seed = seed
        self._results_file = results_file
        self._space_file = space_file
        self._search = search or SearchRequest()
        self._until_targets = until_targets
        self._workers = workers
        self._display = display or Display()
        self._results: dict[str, Any] | None = None
        self.stopped = False

    def load_config(self, config_file: str) -> dict[str, Any]:
        """Read and check a configuration file; return its content as plain data.

        Raises:
            FileNotFoundError: There is no such file.
            yaml.YAMLError: It is not YAML.
            ConfigurationError: Something in it is wrong; all problems at once.
        """
        return load_experiments(config_file).config

    def validate_config(self, config: dict[str, Any]) -> None:
        """Check a configuration.

        Raises:
            ConfigurationError: Something in it is wrong; all problems at once. It is a ValueError.
        """
        parse_experiments(config)

    def run_experiments(self, experiment_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Train all or some experiments of the file, and write the results.

        Experiments that the study has finished are not trained again; one that fails is recorded, and the next one
        runs. The results are written also if this is interrupted; the next call then goes on.

        Args:
            experiment_names: Which experiments; None for all.

        Returns:
            The documented results, of the whole study.

        Raises:
            ConfigurationError: A name is unknown, or something does not fit the study; nothing was created.
            DataLoaderError: The dataset is missing or damaged.
        """
        experiments = self._file.select(experiment_names)
        if not experiments:
            raise ConfigurationError("experiments: none chosen; name one or more, or leave the names out for all")
        return self._run(self._file, experiments, self._search)

    def run_single_experiment(self, experiment_name: str, experiment_config: dict[str, Any]) -> dict[str, Any]:
        """Train one experiment.

        Args:
            experiment_name: Its name in the study.
            experiment_config: Its sections, as under its name in a configuration file.

        Returns:
            Its entry of the documented results.

        Raises:
            ConfigurationError: Something in it is wrong, or does not fit the study.
            DataLoaderError: The dataset is missing or damaged.
            ExperimentFailedError: It failed, and the study says so too; or another process is at it, or stop was asked
                for.
        """
        file = parse_experiments({"experiments": {experiment_name: experiment_config}})
        results = self._run(file, file.experiments, SearchRequest())
        entries: list[dict[str, Any]] = results["all_results"]
        entry = next((entry for entry in entries if entry["experiment_name"] == experiment_name), None)
        if entry is None and self.stopped:
            raise ExperimentFailedError(f"experiment {experiment_name!r}: stop was asked for; the same call goes on")
        if entry is None:
            raise ExperimentFailedError(f"experiment {experiment_name!r}: another process trains it; wait for that")
        if entry["status"] == "failed":
            raise ExperimentFailedError(f"experiment {experiment_name!r} failed: {entry['error_message']}")
        return entry

    def save_results(self) -> str:
        """Write the results of the study; return the path.

        Raises:
            ConfigurationError: The output folder holds no study yet.
        """
        if self._results is None:
            study, _ = load_study(self._output_dir, storage_url=self._storage, name=self._study_name)
            self._results = render_results(study, timestamp=timestamp())
        write_results(self._results, self._results_file)
        return self._results_file or default_results_name(self._results["timestamp"])

    def _run(self, file: ExperimentFile, chosen: Mapping[str, TrainingConfig], search: SearchRequest) -> dict[str, Any]:
        experiments = with_overrides(chosen, seed=self._seed, device=self._device)
        check_results_path(self._results_file)
        check_search(search)
        first = next(iter(experiments.values()))
        session = Session.open(
            StudyLocation(self._output_dir, self._study_name, self._storage, first.device),
            experiments,
            file.targets,
            file_order=list(file.experiments),
            may_generate=not file.names_dataset,
            display=self._display,
            device=self._device,
            space=load_space(self._space_file, first),
            search=search,
        )
        scope = TrialFilter(frozenset(experiments), search=search.at_least > 0)
        limits = StopConditions(until_targets=self._until_targets)
        self._results = run_study(session, scope, limits, workers=self._workers, results_file=self._results_file)
        self.stopped = session.stop_requested
        return self._results
