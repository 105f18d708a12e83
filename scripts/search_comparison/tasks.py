"""Small, difficult datasets with their presets and their search space, in which all competitors search."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
from harness.run import HarnessError
from PIL import Image

import search_spaces
from search_spaces import (
    ModelDefinition,
    SearchSpace,
    Targets,
    TrainingConfig,
    experiments_yaml,
    fit_loss,
    load_experiments,
    load_model_definitions,
    load_search_space,
)
from search_spaces.diagnostics.disk import write_text
from tuner.data.generation.dataset import generate_dataset
from tuner.data.pixel_cache import PixelCache, open_pixel_cache
from tuner.data.vocabulary import KHMER_DIGITS

MODELS = """\
models:
  small: {decoder: attention, stem_channels: [4, 16], stage_channels: [32], blocks_per_stage: 0, width: 64,
          context_layers: 0}
  medium: {decoder: attention, stem_channels: [4, 16], stage_channels: [32], blocks_per_stage: 0, width: 64}
  large: {decoder: attention, stem_channels: [4, 16], stage_channels: [32, 32], blocks_per_stage: 0, width: 96}
  ctc: {decoder: ctc, stem_channels: [4, 16], stage_channels: [32], blocks_per_stage: 0, width: 64}
"""
SPACE = """\
space:
  model_name: [small, medium, large, ctc]
  batch_size: {low: 8, high: 96, step: 8}
  learning_rate: {low: 1e-5, high: 3e-2, log: true}
  weight_decay: {low: 1e-6, high: 1e-1, log: true}
  optimizer_type: [adam, adamw]
  loss_type: {choices: [crossentropy, focal], when: {model_name: [small, medium, large]}}
  label_smoothing: {low: 0.0, high: 0.2, when: {loss_type: crossentropy}}
  scheduler_type: [cosine, steplr, plateau]
  warmup_epochs: {low: 0, high: 5, when: {scheduler_type: cosine}}
  step_size: {low: 4, high: 12, when: {scheduler_type: steplr}}
  patience: {low: 2, high: 8, when: {scheduler_type: plateau}}
"""
EXPERIMENTS_FILE = "experiments.yaml"
SPACE_FILE = "space.yaml"
_MODELS_FILE = "models.yaml"
_SETTINGS_FILE = "settings.json"
_METADATA = "data/metadata.yaml"
_PRESETS = Path(search_spaces.__file__).parent / "config" / "phase3_simple_configs.yaml"


@dataclass(frozen=True)
class Task:
    """A dataset to search on.

    Attributes:
        characters: The characters of the labels.
        max_length: Maximum number of characters in a label.
        samples: Number of training and validation images, four to one.
        test_samples: Number of test images.
        font_files: Fonts of Matplotlib in which the characters are rendered, without extension; empty for the built-in
            font.
        noise: Standard deviation of the noise that is added to each pixel, on the scale 0 to 255.
    """

    characters: str
    max_length: int
    samples: int = 1250
    test_samples: int = 1500
    font_files: tuple[str, ...] = ()
    noise: float = 0.0


TASKS = {
    "digits": Task(KHMER_DIGITS, max_length=8),
    "letters": Task(
        "ABCDEFGHKLMNPRSTUVXZ",
        max_length=6,
        font_files=("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold", "STIXGeneral", "STIXGeneralBol"),
        noise=20.0,
    ),
}


@dataclass(frozen=True)
class Problem:
    """The presets, the search space, and the settings that all trials of a task share.

    Attributes:
        presets: The presets, with the seed of this search.
        space: The search space.
        start: The settings of a trial before any parameter is sampled.
        definitions: The networks, keyed by model name.
        cache: The images and labels.
    """

    presets: dict[str, TrainingConfig]
    space: SearchSpace
    start: TrainingConfig
    definitions: dict[str, ModelDefinition]
    cache: PixelCache

    @classmethod
    def load(cls, seed: int) -> Problem:
        """Load the problem from the working directory, which `prepare` has filled."""
        experiments = load_experiments(EXPERIMENTS_FILE).experiments
        cache = open_pixel_cache(_METADATA, ["train", "val"])
        presets = {name: replace(preset, seed=seed, **cache.vocabulary.sizes) for name, preset in experiments.items()}
        space = load_search_space(SPACE_FILE)
        start = replace(space.start_config(presets.values()), **cache.vocabulary.sizes)
        return cls(presets, space, start, load_model_definitions(_MODELS_FILE), cache)

    def adjusted(self, config: TrainingConfig) -> TrainingConfig:
        """Return a configuration with the dependent settings that the product adjusts: `min_lr` and the loss."""
        return fit_loss(replace(config, min_lr=min(config.min_lr, config.learning_rate)), self.definitions)

    def parameters(self, config: TrainingConfig) -> dict[str, object]:
        """Return the values of the parameters that are active in a configuration, keyed by name."""
        return {item.name: getattr(config, item.name) for item in self.space.active(config)}


def count_presets() -> int:
    """Return the number of presets, which each search trains first."""
    return len(load_experiments(str(_PRESETS)).experiments)


def prepare(task: Task, folder: Path, epochs: int, budget: int) -> None:
    """Write the configuration of a task, and generate its dataset if it is missing.

    Args:
        task: The task.
        folder: The folder of the task, created if it is missing.
        epochs: Maximum number of epochs per trial.
        budget: Number of epochs per search.

    Raises:
        HarnessError: The folder has searches with other settings.
    """
    presets = load_experiments(str(_PRESETS)).experiments
    narrow = {name: _for_comparison(preset, epochs) for name, preset in presets.items()}
    texts = {
        _MODELS_FILE: MODELS,
        EXPERIMENTS_FILE: experiments_yaml(narrow, Targets()),
        SPACE_FILE: f"base: {{num_epochs: {epochs}}}\n{SPACE}",
        _SETTINGS_FILE: json.dumps({"budget": budget, **asdict(task)}, indent=2, ensure_ascii=False) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        if not (folder / name).exists():
            write_text(folder / name, text)
        elif (folder / name).read_text(encoding="utf-8") != text:
            raise HarnessError(
                f"{folder / name}: found other settings than those of this command, so its searches cannot be compared "
                "with new ones; repeat the command with the same --budget, --epochs and --samples, or choose another "
                "--work-dir"
            )
    if not (folder / _METADATA).exists():
        _write_dataset(task, folder)


def _for_comparison(preset: TrainingConfig, epochs: int) -> TrainingConfig:
    return replace(
        preset,
        model_config_path=_MODELS_FILE,
        metadata_path=_METADATA,
        augmentation=False,
        num_epochs=epochs,
        device="cpu",
        use_tensorboard=False,
        early_stopping_patience=8,
        early_stopping_min_delta=0.001,
    )


def _write_dataset(task: Task, folder: Path) -> None:
    """Generate a dataset whose test split is named `unseen`, so that the product scores each trial on it.

    The dataset is complete once its folder has its final name.
    """
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    fonts = unfinished / "fonts"
    fonts.mkdir(parents=True)
    for name in task.font_files:
        shutil.copy(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", fonts)
    metadata = generate_dataset(
        unfinished / "data",
        samples=task.samples,
        test_samples=task.test_samples,
        fonts_dir=fonts if task.font_files else None,
        characters=task.characters,
        max_length=task.max_length,
    )
    metadata.write_text(metadata.read_text().replace("\ntest:\n", "\nunseen:\n"))
    (metadata.parent / "test").rename(metadata.parent / "unseen")
    random = np.random.default_rng(0)
    for path in sorted(metadata.parent.glob("*/*.png")) if task.noise else ():
        pixels = np.asarray(Image.open(path).convert("L"), dtype=np.float64)
        noisy = pixels + random.normal(0.0, task.noise, pixels.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    (unfinished / "data").rename(folder / "data")
    shutil.rmtree(unfinished)
