"""The settings of one training, flat: the same field names in code, database, dashboard, CSV and JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class TrainingConfig:
    """Everything that one training needs to know.

    The fields of the API reference come first, in its order and with its defaults. Ranges and choices, which
    ``search_spaces/README.md`` lists, are checked where a configuration enters the program (`create_training_config`,
    `load_experiments`), not here.

    Attributes:
        model_name: A model of the definitions file; the packaged one has ``small``, ``medium``, ``large`` and ``ctc``.
        model_config_path: The definitions file; looked up in the working directory, beside the file that names it, and
            in this package.
        vocab_size: Number of symbols: ten digits, end, padding and blank; no other number is supported.
        max_sequence_length: Label positions: up to eight digits and the end mark; no other number is supported.
        metadata_path: The dataset's ``metadata.yaml``.
        train_split: The split that is trained on.
        val_split: The split that is validated on; another one than `train_split`.
        batch_size: Images per optimizer step.
        num_workers: Processes of the loaders of `create_data_loaders`; trials need none.
        pin_memory: Whether the loaders of `create_data_loaders` put batches into page-locked memory.
        augmentation: Whether training images are distorted at random.
        device: Where to compute; ``auto`` takes CUDA where there is a device, else the CPU.
        mixed_precision: Whether to compute in half precision where the device has it.
        num_epochs: The most epochs to train.
        learning_rate: The initial learning rate.
        weight_decay: L2 strength; weights that a normalisation follows have none, since their size has no effect.
        gradient_clip_norm: The largest gradient norm; 0 switches clipping off.
        log_every_n_steps: Optimizer steps between two lines in the trial's log; the last step of an epoch has one too.
        save_every_n_epochs: Epochs between two numbered snapshots, ``epoch_0005.pt``.
        keep_n_checkpoints: Number of numbered snapshots that are kept.
        use_tensorboard: Whether TensorBoard files are written.
        loss_type: The loss; CTC models have ``ctc`` only, the others one of the other two.
        label_smoothing: Share of the probability that is spread over all symbols.
        optimizer_type: The optimizer.
        optimizer_betas: Adam's decay rates of the two running averages.
        scheduler_type: How the learning rate falls: along a cosine, in steps, or when validation stops improving.
        warmup_epochs: Epochs before the cosine over which the rate rises linearly, step by step. With 0, as with every
            other schedule, it still rises through the first epoch, but the cosine begins with that epoch.
        min_lr: The floor of every scheduler, at most `learning_rate`.
        step_size: Epochs between two drops of the rate.
        gamma: Factor of the rate at each drop.
        patience: Epochs without improvement before the rate drops.
        factor: Factor of the rate at each drop.
        early_stopping_patience: Epochs without improvement after which training stops.
        early_stopping_min_delta: The change of the monitored metric that an improvement must exceed.
        early_stopping_monitor: The metric that selects the best checkpoint, stops early and is the study's value.
        early_stopping_mode: ``max`` if higher is better, ``min`` if lower is.
        experiment_name: The trial's name and that of its folder.
        output_dir: The study's output folder.
        seed: Start of every random sequence; the same seed gives the same training on CPU.
        focal_alpha: Scale of the focal loss.
        focal_gamma: How strongly the focal loss turns to hard examples; 0 is cross-entropy.
        threads: PyTorch's threads while it trains; they decide on the last digits on the CPU. Without it, those of the
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
# What names the work, moves it around or reports on it. The dataset and the model definitions are checked by
# content, by the study, so their paths may change.
WITHOUT_EFFECT_ON_RESULT = frozenset(
    {
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

# What a study has one of, so that its trials compete on one dataset for one metric.
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
    """Return the configuration with settings that another version may have stored; unknown ones are left out."""
    return TrainingConfig(**{name: value for name, value in settings.items() if name in _FIELDS})


def config_digest(config: TrainingConfig) -> str:
    """Return the SHA-256 (64 hexadecimal digits) of what determines a training's result.

    Values at their default are left out, so that a field added in a later version of this program leaves the
    digests in existing studies as they are.
    """
    defaults = _settings_with_effect(TrainingConfig())
    settings = {name: value for name, value in _settings_with_effect(config).items() if value != defaults[name]}
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differing_fields(old: TrainingConfig, new: TrainingConfig) -> dict[str, tuple[Any, Any]]:
    """Return, as ``(old, new)``, the fields that `config_digest` looks at and that differ."""
    before, after = _settings_with_effect(old), _settings_with_effect(new)
    return {name: (value, after[name]) for name, value in before.items() if value != after[name]}


def shared_fields(configs: Sequence[TrainingConfig]) -> dict[str, Any]:
    """Return what configurations of one study have in common, without name and folder; nothing if there are none.

    What a study has one of is the first one's: paths to the same content can be spelled in several ways. So is the
    model where they disagree, unless one of them uses the default model: another one may not be defined.
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


def _settings_with_effect(config: TrainingConfig) -> dict[str, Any]:
    """Return the fields that determine the result, written one way: rates of 1 and 1.0 are the same."""
    defaults: Mapping[str, Any] = asdict(TrainingConfig())
    return {
        name: _like(value, defaults[name])
        for name, value in asdict(config).items()
        if name not in WITHOUT_EFFECT_ON_RESULT
    }


def _like(value: Any, default: Any) -> Any:
    """Return a number in the type of its field's default; a tuple becomes a list."""
    if isinstance(default, list):
        return [float(item) for item in value]
    return float(value) if isinstance(default, float) else value
