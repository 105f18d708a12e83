"""What a benchmark works with, and the experiments that it trains."""

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
Say = Callable[[str], object]

# Early stopping may not end what is measured.
_ENDLESS_PATIENCE = 100_000
_MODEL_BATCH_SIZE = 64


@dataclass(frozen=True)
class Plan:
    """What all parts have in common.

    Attributes:
        folder: The work folder, removed at the end.
        metadata: The dataset's metadata file, absolute.
        config: The experiments file whose presets are measured.
        threads: PyTorch's threads, shared by processes in parallel.
        quick: Whether everything is small: the figures then say that the benchmark runs, and not much more.
        say: Called with what is being measured.
    """

    folder: Path
    metadata: Path
    config: str
    threads: int
    quick: bool
    say: Say

    @property
    def presets(self) -> dict[str, TrainingConfig]:
        """The presets on this dataset, without an end of their own."""
        found = load_experiments(self.config).experiments
        chosen = dict(list(found.items())[:1]) if self.quick else found
        return {name: self._placed(name, config) for name, config in chosen.items()}

    @property
    def typical(self) -> TrainingConfig:
        """The preset that stands for all where one is enough: the second, if there are two."""
        presets = list(self.presets.values())
        return presets[min(1, len(presets) - 1)]

    @property
    def models(self) -> dict[str, TrainingConfig]:
        """Every defined model under default settings, by ``model NAME``."""
        base = TrainingConfig(batch_size=_MODEL_BATCH_SIZE)
        definitions = load_model_definitions(base.model_config_path)
        names = list(definitions)[-1:] if self.quick else definitions
        return {
            f"model {name}": self._placed(f"model {name}", fit_loss(replace(base, model_name=name), definitions))
            for name in names
        }

    @property
    def targets(self) -> Targets:
        """What the presets should reach."""
        return load_experiments(self.config).targets

    def _placed(self, name: str, config: TrainingConfig) -> TrainingConfig:
        # It is trained in other folders, from which a relative path would be wrong.
        models = str(resolve_config_path(config.model_config_path).absolute())
        return replace(
            config, experiment_name=name, metadata_path=str(self.metadata), model_config_path=models, device="cpu"
        )


def without_end(config: TrainingConfig, epochs: int, device: str) -> TrainingConfig:
    """Return a configuration that trains exactly this many epochs on a device."""
    return replace(config, num_epochs=epochs, device=device, early_stopping_patience=_ENDLESS_PATIENCE)


def write_experiments(path: Path, configs: Mapping[str, TrainingConfig], targets: Targets | None = None) -> Path:
    """Write configurations as an experiments file; return its path."""
    path.write_text(experiments_yaml(configs, targets or Targets()), encoding="utf-8")
    return path


def train_here(config: TrainingConfig, folder: Path) -> None:
    """Train an experiment in a folder with the real command, in this process.

    Raises:
        HarnessError: The command failed.
    """
    folder.mkdir(exist_ok=True)
    file = write_experiments(folder / "experiments.yaml", {config.experiment_name: config})
    run_here("run", "--config", str(file), "--output-dir", str(folder / "out"))


def run_here(*words: str) -> None:
    """Run a command that writes ``results.json`` beside its output folder, the last word, in this process.

    Raises:
        HarnessError: The command failed.
    """
    from tuner.__main__ import main

    results = Path(words[-1]).parent / "results.json"
    if code := main([*words, "--results-file", str(results)]):
        raise HarnessError(f"exit code {code} of khmer-tuner {' '.join(words)}")
