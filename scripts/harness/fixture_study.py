"""The study that is killed: real networks, data and search, so small that a whole run takes seconds.

The one place that knows how the study is made and where it is kept.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

OUTPUT = "out"
RESULTS = "results.json"
# Where the program, too, is told of a database elsewhere than in the output folder.
STORAGE_VARIABLE = "KHMER_TUNER_STORAGE"

# With this seed trials end in all three ways, in long studies and in short ones.
_SEED = 2
_NETWORK = {
    "decoder": "attention",
    "stem_channels": [4, 8],
    "stage_channels": [8],
    "blocks_per_stage": 0,
    "width": 16,
    "context_layers": 0,
}
_SPACE = """\
space:
  model_name: [tiny, tiny_ctc]
  learning_rate: {low: 1e-4, high: 1e-1, log: true}
  batch_size: {low: 8, high: 24, step: 8}
  scheduler_type: [cosine, steplr]
  warmup_epochs: {low: 0, high: 2, when: {scheduler_type: cosine}}
  gamma: {low: 0.1, high: 0.7, when: {scheduler_type: steplr}}
"""


@dataclass(frozen=True)
class FixtureStudy:
    """What all the studies of a work folder have in common.

    Attributes:
        folder: The work folder; each study has a folder of its own in it.
        search_trials: How many trials it searches, besides its presets.
        sampler: Which sampler draws them.
        samples: How many images its dataset has.
        epochs: How many epochs its trials have at most.
    """

    folder: Path
    search_trials: int
    sampler: str = "tpe"
    samples: int = 40
    epochs: int = 5

    @property
    def preset_names(self) -> list[str]:
        """Names of its presets, in order."""
        return list(_presets(self.epochs))

    @property
    def trials(self) -> int:
        """How many trials it has when it is complete."""
        return len(self.preset_names) + self.search_trials

    @property
    def ends(self) -> frozenset[str]:
        """Why trials of it must end, so that it shows all that a study can; a Gaussian process prunes nothing."""
        return frozenset({"max_epochs", "early_stopped"} | ({"pruned"} if self.sampler != "gp" else set()))

    @property
    def run(self) -> list[str]:
        """The command that begins it or goes on with it; to be given in a study's folder."""
        search = ["--space", "../space.yaml", "--trials", str(self.search_trials), "--seed", str(_SEED)]
        return ["run", "--config", "../experiments.yaml", *search, "--sampler", self.sampler, *_places()]

    @property
    def resume(self) -> list[str]:
        """The command that goes on with it."""
        return ["resume", *_places()]

    def write_inputs(self) -> None:
        """Draw the dataset and write the three files that the commands read; for a process of its own."""
        from tuner.data.generation import generate_dataset

        generate_dataset(self.folder / "data", samples=self.samples, test_samples=10)
        models = {"tiny": _NETWORK, "tiny_ctc": _NETWORK | {"decoder": "ctc"}}
        self._write("models.yaml", {"models": models})
        self._write("experiments.yaml", {"experiments": _presets(self.epochs)})
        base = f"base: {{num_epochs: {self.epochs}, use_tensorboard: false}}\n"
        (self.folder / "space.yaml").write_text(base + _SPACE, encoding="utf-8")

    def _write(self, name: str, data: dict[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def open_study(folder: Path) -> Any:
    """Return the study of a study's folder, for reading; for a process of its own.

    Raises:
        ConfigurationError: It has not begun.
    """
    from studies import load_study

    study, _ = load_study(folder / OUTPUT, storage_url=os.environ.get(STORAGE_VARIABLE))
    return study


def _places() -> list[str]:
    # Relative, so that studies in different folders are equal to the letter.
    return ["--output-dir", OUTPUT, "--results-file", RESULTS]


def _presets(epochs: int) -> dict[str, Any]:
    return {
        "with_curves": _preset("tiny", epochs, use_tensorboard=True, log_every_n_steps=1),
        "plain": _preset("tiny_ctc", epochs, loss_type="ctc"),
    }


def _preset(model: str, epochs: int, **training: Any) -> dict[str, Any]:
    shared = {
        "device": "cpu",
        "batch_size": 8,
        "num_epochs": epochs,
        "learning_rate": 0.003,
        "use_tensorboard": False,
        "save_every_n_epochs": 2,
        "keep_n_checkpoints": 1,
    }
    return {
        "model": {"name": model, "config_path": "../models.yaml"},
        "data": {"metadata_path": "../data/metadata.yaml"},
        "training": shared | training,
        "early_stopping": {"patience": 2, "monitor": "val_loss", "mode": "min", "min_delta": 0.02},
    }
