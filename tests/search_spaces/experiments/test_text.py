from dataclasses import asdict, fields

import pytest

from search_spaces import (
    Targets,
    TrainingConfig,
    experiments_data,
    experiments_yaml,
    load_experiments,
    parse_experiments,
)
from search_spaces.experiments.schema import FIELD_OF_KEY
from search_spaces.training_config import DATASET_FIELDS

PRESETS = "config/phase3_simple_configs.yaml"


def read_back(config, folder, name="one", targets=None):
    path = folder / "written.yaml"
    path.write_text(experiments_yaml({name: config}, targets or Targets()), encoding="utf-8")
    return load_experiments(path)


def test_default_experiments_are_read_back_unchanged(tmp_path):
    file = load_experiments(PRESETS)
    path = tmp_path / "written.yaml"
    path.write_text(experiments_yaml(file.experiments, file.targets))
    again = load_experiments(path)
    assert again.experiments == file.experiments
    assert again.targets == file.targets
    assert again.notes == ()


CHANGES = {
    "small numbers": {"learning_rate": 1e-5, "min_lr": 1e-12, "weight_decay": 0.0},
    "all digits of a number": {"learning_rate": 0.00123456789012345678, "optimizer_betas": [0.1 + 0.2, 0.999]},
    "a tuple": {"optimizer_betas": (0.8, 0.9)},
    "focal": {"loss_type": "focal", "focal_gamma": 0.0, "focal_alpha": 0.25},
    "smoothing": {"label_smoothing": 0.1},
    "ctc": {"loss_type": "ctc", "model_name": "ctc"},
    "cosine": {"scheduler_type": "cosine", "warmup_epochs": 3},
    "plateau": {"scheduler_type": "plateau", "patience": 0, "factor": 0.9},
    "steplr": {"scheduler_type": "steplr", "step_size": 3, "gamma": 1.0},
    "words": {"metadata_path": "/data/៣ #1: 'x'/yes", "train_split": "1e-3", "val_split": "no"},
    "another metric": {"early_stopping_monitor": "val_loss", "early_stopping_mode": "min"},
    "switches": {"augmentation": False, "mixed_precision": True, "use_tensorboard": False, "pin_memory": True},
    "threads": {"threads": 3},
    "largest seed": {"seed": 2**32 - 1},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_settings_with_effect_are_read_back_exactly(changes, tmp_path):
    config = TrainingConfig(**changes)
    again = read_back(config, tmp_path).experiments["one"]
    assert {name: getattr(again, name) for name in changes} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()
    }


@pytest.mark.parametrize("name", ["ខ្មែរ", "1e-3", "yes", "007", "null", "a b"])
def test_unusual_names_are_read_back(name, tmp_path):
    assert list(read_back(TrainingConfig(), tmp_path, name).experiments) == [name]


def test_keys_without_effect_are_omitted(tmp_path):
    config = TrainingConfig(loss_type="focal", label_smoothing=0.1, scheduler_type="plateau", gamma=0.3)
    file = read_back(config, tmp_path)
    assert [note for note in file.notes if "no effect" in note] == []
    assert (file.experiments["one"].label_smoothing, file.experiments["one"].gamma) == (0.0, TrainingConfig.gamma)


def test_every_key_is_written_with_some_type_of_loss_and_scheduler():
    written = set()
    for loss, scheduler in (("crossentropy", "cosine"), ("focal", "steplr"), ("focal", "plateau")):
        config = TrainingConfig(loss_type=loss, scheduler_type=scheduler, threads=1)
        sections = experiments_data({"one": config}, Targets())["experiments"]["one"]
        written |= {FIELD_OF_KEY[section, key] for section, values in sections.items() for key in values}
    assert written == set(FIELD_OF_KEY.values()) - set(DATASET_FIELDS)
    assert written < {item.name for item in fields(TrainingConfig)}


def test_plain_data_and_text_are_read_back_equally(tmp_path):
    config, targets = TrainingConfig(seed=3), Targets(character_accuracy=0.5)
    data = experiments_data({"one": config}, targets)
    parsed = parse_experiments(data)
    assert asdict(parsed.experiments["one"]) == asdict(read_back(config, tmp_path, targets=targets).experiments["one"])
    assert parsed.targets == targets
