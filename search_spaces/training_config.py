"""The settings of one training run, with the same field names in code, database, dashboard, CSV and JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class TrainingConfig:
    """All settings of one training run.

    The fields of the API reference come first, in its order and with its defaults. This class does not validate
    values; `create_training_config` and `load_experiments` do (``search_spaces/README.md`` lists the valid values).

    Example::

        from dataclasses import replace
        from tuner import TrainingConfig

        config = TrainingConfig(model_name="small", batch_size=64)
        longer = replace(config, num_epochs=60)
        print(longer.batch_size, longer.num_epochs, longer.optimizer_type)

    Attributes:
        model_name: A model of the definitions file; the default file has ``small``, ``medium``, ``large`` and ``ctc``.
        model_config_path: The model definitions file; searched in the working directory, in the folder of the
            experiments file, and in this package.
        vocab_size: Number of classes: the dataset's characters and ``<EOS>``, ``<PAD>`` and ``<BLANK>``. An experiments
            file takes it from the dataset; if it is set, it must agree with the dataset.
        max_sequence_length: Number of label positions: the dataset's maximum number of characters, and ``<EOS>``. An
            experiments file takes it from the dataset; if it is set, it must agree with the dataset.
        metadata_path: The dataset's ``metadata.yaml``.
        train_split: The split for training.
        val_split: The split for validation; must differ from `train_split`.
        batch_size: Images per optimizer step.
        num_workers: Worker processes of `create_data_loaders`; trials use none.
        pin_memory: Whether `create_data_loaders` copies batches into page-locked memory.
        augmentation: Whether to augment training images with random distortions.
        device: The device; ``auto`` uses CUDA if available, else the CPU.
        mixed_precision: Whether to use automatic mixed precision if the device supports it.
        num_epochs: Maximum number of epochs.
        learning_rate: The initial learning rate.
        weight_decay: Weight decay; not applied to weights before a normalisation, because their scale has no effect.
        gradient_clip_norm: Maximum gradient norm; 0 disables clipping.
        log_every_n_steps: Optimizer steps between two log lines; the last step of an epoch is logged too.
        save_every_n_epochs: Epochs between two numbered snapshots, ``epoch_0005.pt``.
        keep_n_checkpoints: Number of numbered snapshots to keep.
        use_tensorboard: Whether to write TensorBoard files.
        loss_type: The loss function; ``ctc`` for CTC models, ``crossentropy`` or ``focal`` for the others.
        label_smoothing: Fraction of the probability that is spread over all symbols.
        optimizer_type: The optimizer.
        optimizer_betas: Decay rates of Adam's two running averages.
        scheduler_type: The learning rate schedule: cosine, in steps, or a drop when validation stops improving.
        warmup_epochs: Epochs of linear warm-up before the cosine; the learning rate rises with every step. With 0, and
            with other schedules, the first epoch is also a warm-up, but the cosine starts with the first epoch.
        min_lr: Lower bound of the learning rate in every schedule, at most `learning_rate`.
        step_size: Epochs between two drops of the learning rate.
        gamma: Factor by which each drop multiplies the learning rate.
        patience: Epochs without improvement before the learning rate drops.
        factor: Factor by which each drop multiplies the learning rate.
        early_stopping_patience: Epochs without improvement before training stops.
        early_stopping_min_delta: Change of the monitored metric that an improvement must exceed.
        early_stopping_monitor: The metric for the best checkpoint, for early stopping and for the study's objective.
        early_stopping_mode: ``max`` if higher is better, ``min`` if lower is better.
        experiment_name: The name of the trial and of its folder.
        output_dir: The study's output folder.
        seed: Random seed; on the CPU, the same seed gives the same training result.
        focal_alpha: Scale of the focal loss.
        focal_gamma: Focusing parameter of the focal loss; 0 is cross-entropy.
        threads: Number of PyTorch threads; on the CPU, it affects rounding. None keeps the current number of the
            process.
    """

    model_name: str = "medium"
    model_config_path: str = "config/model_config.yaml"
    vocab_size: int = 13
    max_sequence_length: int = 9

    metadata_path: str = "generated_data/metadata.yaml"
    train_split: str = "train"
    val_split: str = "val"
    batch_size: int = 32
    num_workers: int = 4
    pin_memory: bool = False
    augmentation: bool = True

    device: str = "auto"
    mixed_precision: bool = False
    num_epochs: int = 40
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    gradient_clip_norm: float = 1.0
    log_every_n_steps: int = 25
    save_every_n_epochs: int = 5
    keep_n_checkpoints: int = 3
    use_tensorboard: bool = True

    loss_type: str = "crossentropy"
    label_smoothing: float = 0.0

    optimizer_type: str = "adam"
    optimizer_betas: list[float] = field(default_factory=lambda: [0.9, 0.999])

    scheduler_type: str = "steplr"
    warmup_epochs: int = 0
    min_lr: float = 1e-6
    step_size: int = 10
    gamma: float = 0.5
    patience: int = 5
    factor: float = 0.5

    early_stopping_patience: int = 10
    early_stopping_min_delta: float = 1e-4
    early_stopping_monitor: str = "val_char_accuracy"
    early_stopping_mode: str = "max"

    experiment_name: str = "hyperparameter_experiment"
    output_dir: str = "training_output"

    seed: int = 0
    focal_alpha: float = 1.0
    focal_gamma: float = 2.0
    threads: int | None = None


_FIELDS = frozenset(item.name for item in fields(TrainingConfig))
# Settings that the dataset determines.
DATASET_FIELDS = ("vocab_size", "max_sequence_length")

# Settings that do not affect the training result. Paths and `DATASET_FIELDS` are included, because the study checks the
# content of the dataset and of the model definitions instead.
WITHOUT_EFFECT = frozenset(
    {
        *DATASET_FIELDS,
        "experiment_name",
        "output_dir",
        "device",
        "num_workers",
        "pin_memory",
        "log_every_n_steps",
        "save_every_n_epochs",
        "keep_n_checkpoints",
        "use_tensorboard",
        "metadata_path",
        "model_config_path",
    }
)

# Settings that all trials of a study share, so that their results are comparable.
STUDY_FIELDS = (
    "metadata_path",
    "train_split",
    "val_split",
    "early_stopping_monitor",
    "early_stopping_mode",
    "model_config_path",
    "seed",
)


def config_from_settings(settings: Mapping[str, Any]) -> TrainingConfig:
    """Create a configuration from stored settings; ignore settings that only other versions of this program have."""
    return TrainingConfig(**{name: value for name, value in settings.items() if name in _FIELDS})


def config_digest(config: TrainingConfig) -> str:
    """Return the SHA-256 (64 hexadecimal digits) of the settings that affect the training result.

    Defaults are omitted, so that a field added in a later version does not change the digests in existing studies.
    """
    defaults = settings_with_effect(TrainingConfig())
    settings = {name: value for name, value in settings_with_effect(config).items() if value != defaults[name]}
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differing_fields(old: TrainingConfig, new: TrainingConfig) -> dict[str, tuple[Any, Any]]:
    """Return the differing settings that affect the training result, as ``(old, new)`` keyed by field."""
    before, after = settings_with_effect(old), settings_with_effect(new)
    return {name: (value, after[name]) for name, value in before.items() if value != after[name]}


def shared_fields(configs: Sequence[TrainingConfig]) -> dict[str, Any]:
    """Return the settings that all configurations of a study share, without name, folder and threads.

    `STUDY_FIELDS` come from the first configuration, because different paths can have the same content. The model is
    the default model if a configuration uses it. Otherwise it is that of the first configuration, because the default
    model may not be defined.
    """
    if not configs:
        return {}
    first, *others = map(asdict, configs)
    models = [config.model_name for config in configs]
    shared = {
        name: value
        for name, value in first.items()
        if name in STUDY_FIELDS or all(other[name] == value for other in others)
    }
    shared["model_name"] = TrainingConfig.model_name if TrainingConfig.model_name in models else models[0]
    return {name: value for name, value in shared.items() if name not in ("experiment_name", "output_dir", "threads")}


def settings_with_effect(config: TrainingConfig) -> dict[str, Any]:
    """Return the settings that affect the training result, with normalised numbers: a learning rate 1 becomes 1.0."""
    defaults: Mapping[str, Any] = asdict(TrainingConfig())
    return {name: _like(value, defaults[name]) for name, value in asdict(config).items() if name not in WITHOUT_EFFECT}


def _like(value: Any, default: Any) -> Any:
    """Convert a value to the type of its field's default: a number to a float, the numbers of a tuple to a list."""
    if isinstance(default, list):
        return [float(item) for item in value]
    return float(value) if isinstance(default, float) else value
