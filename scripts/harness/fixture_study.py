"""The small study that the harnesses run: real networks, data and search, finished within seconds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUTPUT = "out"
RESULTS = "results.json"
# Environment variable with the storage URL of a study whose database is not in the output folder.
STORAGE_VARIABLE = "KHMER_TUNER_STORAGE"

# With this seed, the trials of both short and long studies end for all three reasons.
_SEED = 2
_PRESETS = ("with_curves", "plain")
_INPUTS = {
    "models.yaml": """\
models:
  tiny: {decoder: attention, stem_channels: [4, 8], stage_channels: [8], blocks_per_stage: 0, width: 16,
         context_layers: 0}
  tiny_ctc: {decoder: ctc, stem_channels: [4, 8], stage_channels: [8], blocks_per_stage: 0, width: 16,
             context_layers: 0}
""",
    "experiments.yaml": """\
common: &common
  data: {metadata_path: ../data/metadata.yaml}
  early_stopping: {patience: 2, monitor: val_loss, mode: min, min_delta: 0.02}
training: &training {device: cpu, batch_size: 8, num_epochs: EPOCHS, learning_rate: 0.003, use_tensorboard: false,
                     save_every_n_epochs: 2, keep_n_checkpoints: 1}
experiments:
  with_curves:
    <<: *common
    model: {name: tiny, config_path: ../models.yaml}
    training: {<<: *training, use_tensorboard: true, log_every_n_steps: 1}
  plain:
    <<: *common
    model: {name: tiny_ctc, config_path: ../models.yaml}
    training: {<<: *training, loss_type: ctc}
""",
    "space.yaml": """\
base: {num_epochs: EPOCHS, use_tensorboard: false}
space:
  model_name: [tiny, tiny_ctc]
  learning_rate: {low: 1e-4, high: 1e-1, log: true}
  batch_size: {low: 8, high: 24, step: 8}
  scheduler_type: [cosine, steplr]
  warmup_epochs: {low: 0, high: 2, when: {scheduler_type: cosine}}
  gamma: {low: 0.1, high: 0.7, when: {scheduler_type: steplr}}
""",
}


@dataclass(frozen=True)
class FixtureStudy:
    """Definition of a small study, and the commands that run the study in a folder of its own.

    Attributes:
        folder: Work folder, which contains the dataset, the YAML files and the folders of the studies.
        search_trials: Number of search trials, in addition to the presets.
        sampler: Sampler of the search trials.
        samples: Number of training and validation images.
        epochs: Maximum number of epochs of a trial.
        parallelism: Parallelism of the search; None for the default of the command that starts the search.
        warm_start: Path of a study file from which the search learns, seen from the folder of a study; "" for none.
    """

    folder: Path
    search_trials: int
    sampler: str = "tpe"
    samples: int = 40
    epochs: int = 5
    parallelism: int | None = None
    warm_start: str = ""

    @property
    def trials(self) -> int:
        """Number of presets and search trials."""
        return len(_PRESETS) + self.search_trials

    @property
    def ends(self) -> frozenset[str]:
        """End reasons that must occur in the reference study; the GP sampler prunes no trial."""
        return frozenset({"max_epochs", "early_stopped"} | ({"pruned"} if self.sampler != "gp" else set()))

    @property
    def run(self) -> list[str]:
        """Arguments of ``khmer-tuner`` that create the study in the working directory, or resume it if it exists."""
        search = ["--space", "../space.yaml", "--trials", str(self.search_trials), "--seed", str(_SEED)]
        if self.parallelism is not None:
            search += ["--parallelism", str(self.parallelism), "--threads", "1"]
        search += ["--warm-start", self.warm_start] if self.warm_start else []
        return ["run", "--config", "../experiments.yaml", *search, "--sampler", self.sampler, *_output_options()]

    @property
    def resume(self) -> list[str]:
        """Arguments of ``khmer-tuner`` that resume the study in the working directory."""
        return ["resume", *_output_options()]

    def write_inputs(self) -> None:
        """Generate the dataset and write the YAML files of the study; call this only in a forked child process."""
        from tuner.data.generation.dataset import generate_dataset

        generate_dataset(self.folder / "data", samples=self.samples, test_samples=10)
        for name, text in _INPUTS.items():
            (self.folder / name).write_text(text.replace("EPOCHS", str(self.epochs)), encoding="utf-8")


def open_study(folder: Path) -> Any:
    """Load the study in a folder to read it; call this only in a forked child process.

    Raises:
        ConfigurationError: The study has not been created.
    """
    from studies import load_study

    study, _ = load_study(folder / OUTPUT, storage_url=os.environ.get(STORAGE_VARIABLE))
    return study


def _output_options() -> list[str]:
    # Relative paths, so that studies in different folders store the same text.
    return ["--output-dir", OUTPUT, "--results-file", RESULTS]
