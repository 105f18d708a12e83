from dataclasses import asdict, replace
from typing import Any

import pytest

from search_spaces import TrainingConfig, config_digest, differing_fields

# The API reference's dataclass, field by field.
DOCUMENTED = {
    "model_name": "medium",
    "model_config_path": "config/model_config.yaml",
    "vocab_size": 13,
    "max_sequence_length": 9,
    "metadata_path": "generated_data/metadata.yaml",
    "train_split": "train",
    "val_split": "val",
    "batch_size": 32,
    "num_workers": 4,
    "pin_memory": False,
    "augmentation": True,
    "device": "auto",
    "mixed_precision": False,
    "num_epochs": 40,
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "gradient_clip_norm": 1.0,
    "log_every_n_steps": 25,
    "save_every_n_epochs": 5,
    "keep_n_checkpoints": 3,
    "use_tensorboard": True,
    "loss_type": "crossentropy",
    "label_smoothing": 0.0,
    "optimizer_type": "adam",
    "optimizer_betas": [0.9, 0.999],
    "scheduler_type": "steplr",
    "warmup_epochs": 0,
    "min_lr": 1e-6,
    "step_size": 10,
    "gamma": 0.5,
    "patience": 5,
    "factor": 0.5,
    "early_stopping_patience": 10,
    "early_stopping_min_delta": 1e-4,
    "early_stopping_monitor": "val_char_accuracy",
    "early_stopping_mode": "max",
    "experiment_name": "hyperparameter_experiment",
    "output_dir": "training_output",
}
WITHOUT_EFFECT = {
    "experiment_name": "other",
    "output_dir": "other_output",
    "device": "cpu",
    "num_workers": 0,
    "pin_memory": True,
    "log_every_n_steps": 1,
    "save_every_n_epochs": 1,
    "keep_n_checkpoints": 1,
    "use_tensorboard": False,
    "metadata_path": "/data/metadata.yaml",
    "model_config_path": "mine.yaml",
    "vocab_size": 29,
    "max_sequence_length": 13,
}


def test_documented_fields_come_first_in_order_with_their_defaults():
    ours = asdict(TrainingConfig())
    assert list(ours.items())[: len(DOCUMENTED)] == list(DOCUMENTED.items())
    assert list(ours)[len(DOCUMENTED) :] == ["seed", "focal_alpha", "focal_gamma", "threads"]


def test_configurations_do_not_share_the_list_of_betas():
    assert TrainingConfig().optimizer_betas is not TrainingConfig().optimizer_betas


@pytest.mark.parametrize("field", WITHOUT_EFFECT)
def test_setting_without_effect_does_not_change_the_digest(field):
    changed = replace(TrainingConfig(), **{field: WITHOUT_EFFECT[field]})
    assert config_digest(changed) == config_digest(TrainingConfig())
    assert differing_fields(TrainingConfig(), changed) == {}


@pytest.mark.parametrize("field", [name for name in asdict(TrainingConfig()) if name not in WITHOUT_EFFECT])
def test_every_other_field_changes_the_digest(field):
    old = getattr(TrainingConfig(), field)
    other: Any
    if isinstance(old, bool):
        other = not old
    elif isinstance(old, list):
        other = [0.5, 0.6]
    else:
        other = old + "x" if isinstance(old, str) else (old or 0) + 1
    changed = replace(TrainingConfig(), **{field: other})
    assert config_digest(changed) != config_digest(TrainingConfig())
    assert differing_fields(TrainingConfig(), changed) == {field: (old, other)}


def test_whole_number_and_equal_float_have_the_same_digest():
    whole = TrainingConfig(learning_rate=1, optimizer_betas=[0, 0.5])
    assert config_digest(whole) == config_digest(TrainingConfig(learning_rate=1.0, optimizer_betas=[0.0, 0.5]))


def test_digest_of_a_known_configuration_never_changes():
    # Existing studies store digests; with another digest they would reject their own presets.
    config = TrainingConfig(model_name="small", learning_rate=0.002, optimizer_betas=[0.8, 0.99])
    assert config_digest(config) == "ae8b80dad0ad385402a8ae7b0445da7e7ce2ce6443400b0259ec474bd73be3ee"
