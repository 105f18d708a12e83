"""The documented entry point of the Python API, which trains the experiments of a file as trials of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from search_spaces import ExperimentFailedError, load_experiments, parse_experiments
from studies import SearchRequest, load_study, render_results
from tuner.display.events import Display
from tuner.session.output_paths import timestamp
from tuner.session.run_options import RunOptions
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.workers.run_study import run_request, write_results

__all__ = ["HyperparameterTuner", "RunOptions"]


class HyperparameterTuner:
    """A tuner that trains each experiment of a configuration file exactly once, in the study of an output folder.

    Example::

        from tuner import HyperparameterTuner, ProgressDisplay, RunOptions

        options = RunOptions(output_dir="training_output", device="cpu")
        tuner = HyperparameterTuner("experiments.yaml", options=options, display=ProgressDisplay())
        results = tuner.run_experiments()
        print(results["best_result"]["experiment_name"], results["best_result"]["best_val_char_accuracy"])

    Attributes:
        config_file: The path of the configuration file, as given.
        config: The content of the file as plain data.
        stopped: Whether `khmer-tuner stop` ended the last run; repeat the call to continue.
    """

    def __init__(
        self,
        config_file: str = "config/phase3_simple_configs.yaml",
        *,
        options: RunOptions | None = None,
        display: Display | None = None,
    ) -> None:
        """Read and validate a configuration file without creating anything.

        Args:
            config_file: The experiments file; looked up in the working directory, then in the installed package.
            options: The output folder, the device and more; None for the defaults of `RunOptions`.
            display: Shows the progress of a run, for example a `ProgressDisplay`; None shows nothing.

        Raises:
            FileNotFoundError: The file does not exist.
            yaml.YAMLError: The file is not valid YAML.
            ConfigurationError: The configuration is invalid; all problems are reported together.
        """
        self.config_file = config_file
        self._file = load_experiments(config_file)
        self.config = self._file.config
        self._options = options or RunOptions()
        self._display = display or Display()
        self._results: dict[str, Any] | None = None
        self.stopped = False

    def load_config(self, config_file: str) -> dict[str, Any]:
        """Read and validate a configuration file; return its content as plain data.

        Raises:
            FileNotFoundError: The file does not exist.
            yaml.YAMLError: The file is not valid YAML.
            ConfigurationError: The configuration is invalid; all problems are reported together.
        """
        return load_experiments(config_file).config

    def validate_config(self, config: dict[str, Any]) -> None:
        """Validate a configuration that is given as plain data.

        Text such as ``1e-6``, which PyYAML does not convert to a number, is accepted as a number.

        Raises:
            ConfigurationError: The configuration is invalid; all problems are reported together. It is a ValueError.
        """
        parse_experiments(config)

    def run_experiments(self, experiment_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Train all or some experiments of the file and write the results.

        Finished experiments are not trained again. A failed experiment is recorded, and the next one runs. An
        experiment stays pending after a disk, database or dataset error, or an error before the end of its first epoch.
        An interrupted call still writes the results, and the next call continues. A call that trains nothing writes
        them only if `results_file` is set and that file lacks them; `save_results` always writes them.

        Args:
            experiment_names: The experiments to train; None for all.

        Returns:
            The documented results of these experiments, and of the search trials if the options contain a search;
            `best_result` is the best of them. The results file covers all trials of the study.

        Raises:
            ConfigurationError: A name is unknown, or a setting contradicts the study; nothing was created.
            DataLoaderError: The dataset is missing or damaged.
            ExperimentFailedError: Two trials in a row failed with the same error, so no other trial was started.
        """
        return self._run(RunRequest.from_file(self._file, experiment_names, self._options))

    def run_single_experiment(self, experiment_name: str, experiment_config: dict[str, Any]) -> dict[str, Any]:
        """Train one experiment; the targets of the configuration file apply.

        Args:
            experiment_name: The name of the experiment in the study.
            experiment_config: The sections of the experiment, as in a configuration file.

        Returns:
            The experiment's entry in the documented results.

        Raises:
            ConfigurationError: A setting is invalid or contradicts the study.
            DataLoaderError: The dataset is missing or damaged.
            ExperimentFailedError: The experiment failed, and the study records this; or it is still pending after an
                error, after a stop request, or because another trial has met the targets (`until_targets`).
        """
        file = parse_experiments(self.config | {"experiments": {experiment_name: experiment_config}})
        options = replace(self._options, search=SearchRequest())
        request = RunRequest.from_file(file, options=options)
        results = self._run(request)
        entries: list[dict[str, Any]] = results["all_results"]
        entry = next((entry for entry in entries if entry["experiment_name"] == experiment_name), None)
        if entry is None:
            reason = "not trained, because another trial has met the targets; set `until_targets=False` to train it"
            if request.trial_filter.skipped:
                reason = "still pending after an error; fix the error that its training.log shows, then repeat the call"
            if self.stopped:
                reason = "interrupted by a stop request; repeat the call to continue"
            raise ExperimentFailedError(f"experiment {experiment_name!r}: {reason}")
        if entry["status"] == "failed":
            raise ExperimentFailedError(f"experiment {experiment_name!r} failed: {entry['error_message']}")
        return entry

    def save_results(self) -> str:
        """Write the results of the study and return the path of the results file.

        Raises:
            ConfigurationError: The output folder contains no study yet.
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
