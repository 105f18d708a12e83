"""The sections of an experiments file: keys, types, ranges and choices.

The defaults come from `TrainingConfig`; `FIELD_OF_KEY` maps each key to its field of `TrainingConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from search_spaces.diagnostics.validation import Section
from search_spaces.model_definitions import LossName
from search_spaces.training_config import TrainingConfig

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000)]
Share = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]

OptimizerType = Literal["adam", "adamw"]
SchedulerType = Literal["cosine", "steplr", "plateau"]
Monitor = Literal[
    "train_loss", "val_loss", "train_char_accuracy", "val_char_accuracy", "train_seq_accuracy", "val_seq_accuracy"
]

_DEFAULT: Any = TrainingConfig()
# Python code may pass (0.9, 0.999) instead of [0.9, 0.999].
_FROM_TUPLE = BeforeValidator(lambda value: list(value) if isinstance(value, tuple) else value)


class ModelSection(Section):
    """The section ``model``: the network."""

    name: Text = _DEFAULT.model_name
    config_path: Text = _DEFAULT.model_config_path
    vocab_size: Annotated[int, Field(ge=4, le=503)] = _DEFAULT.vocab_size
    max_sequence_length: Annotated[int, Field(ge=2, le=25)] = _DEFAULT.max_sequence_length


class DataSection(Section):
    """The section ``data``: the dataset and how it is loaded."""

    metadata_path: Text = _DEFAULT.metadata_path
    train_split: Text = _DEFAULT.train_split
    val_split: Text = _DEFAULT.val_split
    num_workers: Annotated[int, Field(ge=0, le=256)] = _DEFAULT.num_workers
    pin_memory: bool = _DEFAULT.pin_memory
    augmentation: bool = _DEFAULT.augmentation


class TrainingSection(Section):
    """The section ``training``: the training loop and the loss function."""

    device: Literal["auto", "cpu", "cuda"] = _DEFAULT.device
    mixed_precision: bool = _DEFAULT.mixed_precision
    gradient_clip_norm: Annotated[float, Field(ge=0, le=1e6)] = _DEFAULT.gradient_clip_norm
    log_every_n_steps: Count = _DEFAULT.log_every_n_steps
    save_every_n_epochs: Count = _DEFAULT.save_every_n_epochs
    keep_n_checkpoints: Count = _DEFAULT.keep_n_checkpoints
    use_tensorboard: bool = _DEFAULT.use_tensorboard
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = _DEFAULT.batch_size
    learning_rate: Annotated[float, Field(gt=0, le=10)] = _DEFAULT.learning_rate
    weight_decay: Annotated[float, Field(ge=0, le=10)] = _DEFAULT.weight_decay
    num_epochs: Annotated[int, Field(ge=1, le=100_000)] = _DEFAULT.num_epochs
    loss_type: LossName = _DEFAULT.loss_type
    label_smoothing: Decay = _DEFAULT.label_smoothing
    seed: Annotated[int, Field(ge=0, lt=2**32)] = _DEFAULT.seed
    focal_alpha: Annotated[float, Field(gt=0, le=100)] = _DEFAULT.focal_alpha
    focal_gamma: Annotated[float, Field(ge=0, le=100)] = _DEFAULT.focal_gamma
    threads: Annotated[int, Field(ge=1, le=1024)] | None = _DEFAULT.threads


class OptimizerSection(Section):
    """The section ``optimizer``; its learning rate and weight decay override those of the section ``training``."""

    type: OptimizerType = _DEFAULT.optimizer_type
    learning_rate: Annotated[float, Field(gt=0, le=10)] = _DEFAULT.learning_rate
    weight_decay: Annotated[float, Field(ge=0, le=10)] = _DEFAULT.weight_decay
    betas: Annotated[list[Decay], _FROM_TUPLE, Field(min_length=2, max_length=2)] = _DEFAULT.optimizer_betas


class SchedulerSection(Section):
    """The section ``scheduler``: the learning rate schedule."""

    type: SchedulerType = _DEFAULT.scheduler_type
    warmup_epochs: CountOrZero = _DEFAULT.warmup_epochs
    min_lr: Annotated[float, Field(ge=0, le=10)] = _DEFAULT.min_lr
    step_size: Count = _DEFAULT.step_size
    gamma: Share = _DEFAULT.gamma
    patience: CountOrZero = _DEFAULT.patience
    factor: Annotated[float, Field(gt=0, lt=1)] = _DEFAULT.factor


class EarlyStoppingSection(Section):
    """The section ``early_stopping``: the monitored metric and when to stop."""

    patience: Count = _DEFAULT.early_stopping_patience
    min_delta: Annotated[float, Field(ge=0, le=1_000)] = _DEFAULT.early_stopping_min_delta
    monitor: Monitor = _DEFAULT.early_stopping_monitor
    mode: Literal["max", "min"] = _DEFAULT.early_stopping_mode


class Experiment(Section):
    """One experiment: an entry of the mapping ``experiments``."""

    experiment_name: str | None = None
    model: ModelSection = Field(default_factory=ModelSection)
    data: DataSection = Field(default_factory=DataSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    optimizer: OptimizerSection = Field(default_factory=OptimizerSection)
    scheduler: SchedulerSection = Field(default_factory=SchedulerSection)
    early_stopping: EarlyStoppingSection = Field(default_factory=EarlyStoppingSection)

    def value(self, section: str, key: str) -> Any:
        """Return the value of a key, or its default if the key is not set."""
        return getattr(getattr(self, section), key)

    def is_set(self, section: str, key: str) -> bool:
        """Return whether the file sets a key, even to its default."""
        return key in getattr(self, section).model_fields_set

    @property
    def learning_rate(self) -> tuple[str, float]:
        """The key that determines the learning rate, and the learning rate."""
        section = "optimizer" if self.is_set("optimizer", "learning_rate") else "training"
        return f"{section}.learning_rate", self.value(section, "learning_rate")


_GOALS = {
    "character_accuracy": "char >= {:g}",
    "sequence_accuracy": "seq >= {:g}",
    "training_time_per_epoch": "s/epoch <= {:g}",
    "convergence_epochs": "converged <= {:g}",
}


class Targets(Section):
    """The mapping ``targets``: minimum accuracies and maximum durations; None for a target that is not set.

    Attributes:
        character_accuracy: Minimum fraction of label positions read correctly.
        sequence_accuracy: Minimum fraction of images read without any error.
        training_time_per_epoch: Maximum seconds per epoch.
        convergence_epochs: Maximum number of epochs until both accuracies are reached.
    """

    character_accuracy: Share | None = None
    sequence_accuracy: Share | None = None
    training_time_per_epoch: Count | None = None
    convergence_epochs: Count | None = None

    def goals(self) -> dict[str, str]:
        """Return a short text for each target that is set, keyed by the target's name: ``char >= 0.85``."""
        return {name: _GOALS[name].format(value) for name, value in self if value is not None}


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Experiment.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
# Keys that have an effect only with one schedule or loss function: the section and key that select it, and its name.
ONLY_FOR = {
    ("scheduler", "warmup_epochs"): ("scheduler", "type", "cosine"),
    ("scheduler", "step_size"): ("scheduler", "type", "steplr"),
    ("scheduler", "gamma"): ("scheduler", "type", "steplr"),
    ("scheduler", "patience"): ("scheduler", "type", "plateau"),
    ("scheduler", "factor"): ("scheduler", "type", "plateau"),
    ("training", "focal_alpha"): ("training", "loss_type", "focal"),
    ("training", "focal_gamma"): ("training", "loss_type", "focal"),
    ("training", "label_smoothing"): ("training", "loss_type", "crossentropy"),
}
# The `TrainingConfig` field of each key: ``section_key`` if that field exists (``model_name``), else ``key``.
FIELD_OF_KEY: dict[tuple[str, str], str] = {
    (section, key): field if (field := f"{section}_{key}") in TrainingConfig.__annotations__ else key
    for section, model in SECTIONS.items()
    for key in model.model_fields
}


def settings_by_field(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values of sections, keyed by field of `TrainingConfig`."""
    # In the schema's order, so that optimizer.learning_rate overrides training.learning_rate.
    return {field: sections[at][key] for (at, key), field in FIELD_OF_KEY.items() if key in sections.get(at, {})}


def _key_locations() -> dict[str, tuple[str, ...]]:
    key_locations: dict[str, tuple[str, ...]] = {"output_dir": ("the option --output-dir",)}
    for (section, key), field in FIELD_OF_KEY.items():
        full_name = f"{section}.{key}"
        for word in {key, field}:
            key_locations[word] = (*key_locations.get(word, ()), full_name)
    return key_locations


# The valid locations (``section.key``) of each key and of each field name, for the remedy for a misplaced key.
KEY_LOCATIONS = _key_locations()
# The section and key of each field; the first one if there are two: training.learning_rate, not
# optimizer.learning_rate.
KEY_OF_FIELD: dict[str, tuple[str, str]] = {field: key for key, field in reversed(FIELD_OF_KEY.items())}
