"""The documented entry point for programs: experiments from a file, trained as trials of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from search_spaces import ExperimentFailedError, load_experiments, parse_experiments
from studies import SearchRequest, load_study, render_results
from tuner.display import Display
from tuner.session.output_paths import timestamp
from tuner.session.run_options import RunOptions
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.workers.run_study import run_request, write_results

__all__ = ["HyperparameterTuner", "RunOptions"]


class HyperparameterTuner:
    """Trains the experiments of a configuration file, each exactly once in the study of an output folder.

    Example::

        from tuner import HyperparameterTuner, ProgressDisplay, RunOptions

        options = RunOptions(output_dir="training_output", device="cpu")
        tuner = HyperparameterTuner("experiments.yaml", options=options, display=ProgressDisplay())
        results = tuner.run_experiments()
        print(results["best_result"]["experiment_name"], results["best_result"]["best_val_char_accuracy"])

    Attributes:
        config_file: The file, as given.
        config: Its content as plain data.
        stopped: Whether a stop was requested during the latest run (`khmer-tuner stop`); the same call continues it.
    """

    def __init__(
        self,
        config_file: str = "config/phase3_simple_configs.yaml",
        *,
        options: RunOptions | None = None,
        display: Display | None = None,
    ) -> None:
        """Read and check a configuration file; nothing is created.

        Args:
            config_file: The experiments; looked up in the working directory, then in the installed package.
            options: Where and how they are trained; by default as `RunOptions` says.
            display: Receives the events of a run and shows the progress, for example a `ProgressDisplay`; by default
                nothing is shown.

        Raises:
            FileNotFoundError: There is no such file.
            yaml.YAMLError: It is not YAML.
            ConfigurationError: Something in it is wrong; all problems are reported together.
        """
        self.config_file = config_file
        self._file = load_experiments(config_file)
        self.config = self._file.config
        self._options = options or RunOptions()
        self._display = display or Display()
        self._results: dict[str, Any] | None = None
        self.stopped = False

    def load_config(self, config_file: str) -> dict[str, Any]:
        """Read and check a configuration file; return its content as plain data.

        Raises:
            FileNotFoundError: There is no such file.
            yaml.YAMLError: It is not YAML.
            ConfigurationError: Something in it is wrong; all problems are reported together.
        """
        return load_experiments(config_file).config

    def validate_config(self, config: dict[str, Any]) -> None:
        """Check a configuration; a number that PyYAML's own loaders leave as text, such as ``1e-6``, is a number.

        Raises:
            ConfigurationError: Something in it is wrong; all problems are reported together. It is a ValueError.
        """
        parse_experiments(config)

    def run_experiments(self, experiment_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Train all or some experiments of the file, and write the results.

        Experiments that the study has finished are not trained again; a failure is recorded, and the next experiment
        runs. An error before the first epoch, or of the disk, the database or the dataset, leaves it pending. The
        results are written also if this is interrupted; the next call then continues. If nothing was trained, they are
        written only to a named `results_file` that does not have them yet; `save_results` always writes.

        Args:
            experiment_names: Which experiments; None for all.

        Returns:
            The documented results of these experiments, and of the search trials if the options ask for a search;
            `best_result` is the best of them. The results file covers the whole study, which may have further ones.

        Raises:
            ConfigurationError: A name is unknown, or something does not fit the study; nothing was created.
            DataLoaderError: The dataset is missing or damaged.
            ExperimentFailedError: Two trials in a row failed with the same error, so no other trial was started.
        """
        return self._run(RunRequest.from_file(self._file, experiment_names, self._options))

    def run_single_experiment(self, experiment_name: str, experiment_config: dict[str, Any]) -> dict[str, Any]:
        """Train one experiment, with the targets of the file.

        Args:
            experiment_name: Its name in the study.
            experiment_config: Its sections, as under its name in a configuration file.

        Returns:
            Its entry of the documented results.

        Raises:
            ConfigurationError: Something in it is wrong, or does not fit the study.
            DataLoaderError: The dataset is missing or damaged.
            ExperimentFailedError: It failed, which the study records, or was not trained to its end: an error left
                it pending, a stop was requested, or with `until_targets` another trial has met the targets.
        """
        file = parse_experiments(self.config | {"experiments": {experiment_name: experiment_config}})
        options = replace(self._options, search=SearchRequest())
        request = RunRequest.from_file(file, options=options)
        results = self._run(request)
        entries: list[dict[str, Any]] = results["all_results"]
        entry = next((entry for entry in entries if entry["experiment_name"] == experiment_name), None)
        if entry is None:
            reason = "another trial has met the targets; without `until_targets` it is trained"
            if request.trial_filter.skipped:
                reason = "an error left it pending; remove the cause that its training.log names, then call this again"
            if self.stopped:
                reason = "a stop was requested; call it again to continue"
            raise ExperimentFailedError(f"experiment {experiment_name!r}: {reason}")
        if entry["status"] == "failed":
            raise ExperimentFailedError(f"experiment {experiment_name!r} failed: {entry['error_message']}")
        return entry

    def save_results(self) -> str:
        """Write the results of the study; return the path.

        Raises:
            ConfigurationError: The output folder holds no study yet.
        """
        options = self._options
        if self._results is None:
            study, _ = load_study(options.output_dir, storage_url=options.storage, name=options.study_name)
            self._results = render_results(study, timestamp=timestamp())
        return str(write_results(self._results, options.results_file))

    def _run(self, request: RunRequest) -> dict[str, Any]:
        request.options.check()
        session = Session.open(request, self._display)
        self._results = run_request(session, request)
        self.stopped = session.stop_requested
        now = self._results["timestamp"]
        return render_results(session.study, timestamp=now, matches=request.trial_filter.matches)
