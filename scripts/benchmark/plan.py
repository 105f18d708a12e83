"""Common settings of all parts of the benchmark, and the experiments that the parts train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.run import HarnessError

from search_spaces import (
    Targets,
    TrainingConfig,
    experiments_yaml,
    fit_loss,
    load_experiments,
    load_model_definitions,
    resolve_config_path,
)

Figures = dict[str, Any]
Log = Callable[[str], object]

# Early stopping must not end a measured training run.
_ENDLESS_PATIENCE = 100_000
_MODEL_BATCH_SIZE = 64


@dataclass(frozen=True)
class Plan:
    """Common settings of all parts.

    Attributes:
        folder: Work folder, removed at the end.
        metadata: Absolute path of the dataset's metadata file.
        config: Experiments file whose presets are measured.
        threads: Number of PyTorch threads, in total for all processes that run in parallel.
        quick: Whether all measurements are small and not representative.
        log: Prints a progress line.
    """

    folder: Path
    metadata: Path
    config: str
    threads: int
    quick: bool
    log: Log

    @property
    def presets(self) -> dict[str, TrainingConfig]:
        """The presets with the paths of this dataset, keyed by name; in a quick run only the first preset."""
        found = load_experiments(self.config).experiments
        chosen = dict(list(found.items())[:1]) if self.quick else found
        return {name: self._with_absolute_paths(name, config) for name, config in chosen.items()}

    @property
    def typical(self) -> TrainingConfig:
        """The preset for measurements that need only one: the second, or the first if there is no second."""
        presets = list(self.presets.values())
        return presets[min(1, len(presets) - 1)]

    @property
    def models(self) -> dict[str, TrainingConfig]:
        """All defined models with default settings, keyed by ``model NAME``; in a quick run only the last model."""
        base = TrainingConfig(batch_size=_MODEL_BATCH_SIZE)
        definitions = load_model_definitions(base.model_config_path)
        names = list(definitions)[-1:] if self.quick else definitions
        return {
            f"model {name}": self._with_absolute_paths(
                f"model {name}", fit_loss(replace(base, model_name=name), definitions)
            )
            for name in names
        }

    def _with_absolute_paths(self, name: str, config: TrainingConfig) -> TrainingConfig:
        # The experiment is trained in another folder, where relative paths would be wrong.
        models = str(resolve_config_path(config.model_config_path).absolute())
        return replace(
            config, experiment_name=name, metadata_path=str(self.metadata), model_config_path=models, device="cpu"
        )


def with_fixed_epochs(config: TrainingConfig, epochs: int) -> TrainingConfig:
    """Return a configuration that trains exactly `epochs` epochs on the CPU, without early stopping."""
    return replace(config, num_epochs=epochs, device="cpu", early_stopping_patience=_ENDLESS_PATIENCE)


def write_experiments(path: Path, configs: Mapping[str, TrainingConfig]) -> Path:
    """Write configurations as an experiments file; return its path."""
    path.write_text(experiments_yaml(configs, Targets()), encoding="utf-8")
    return path


def train_in_process(config: TrainingConfig, folder: Path) -> None:
    """Train an experiment in a folder with the real command in this process.

    Raises:
        HarnessError: The command failed.
    """
    folder.mkdir(exist_ok=True)
    file = write_experiments(folder / "experiments.yaml", {config.experiment_name: config})
    run_in_process("run", "--config", str(file), "--output-dir", str(folder / "out"))


def run_in_process(*arguments: str) -> None:
    """Run a ``khmer-tuner`` command in this process; its last argument must be the output folder.

    The command writes ``results.json`` next to the output folder.

    Raises:
        HarnessError: The command failed.
    """
    from tuner.__main__ import main

    results = Path(arguments[-1]).parent / "results.json"
    if code := main([*arguments, "--results-file", str(results)]):
        raise HarnessError(f"khmer-tuner {' '.join(arguments)} exited with code {code}; expected 0")
