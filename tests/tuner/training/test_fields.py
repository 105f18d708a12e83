"""Every field of `TrainingConfig` has an effect: changing it changes something that a user can observe."""

from dataclasses import fields
from pathlib import Path

import pytest

from search_spaces import TrainingConfig
from tuner.data.generation.dataset import generate_dataset
from tuner.training.checkpoints import load_checkpoint

# Field, a value other than its default, and the other fields with which the change has an effect.
RESULT = [
    ("model_name", "tiny_ctc", {"loss_type": "ctc", "model_name": "tiny_ctc"}),
    ("train_split", "test", {}),
    ("val_split", "test", {}),
    ("batch_size", 10, {}),
    ("augmentation", False, {}),
    ("learning_rate", 0.01, {}),
    ("weight_decay", 0.1, {}),
    ("gradient_clip_norm", 0.01, {}),
    ("loss_type", "focal", {}),
    ("label_smoothing", 0.1, {}),
    ("optimizer_type", "adamw", {"weight_decay": 0.1}),
    ("optimizer_betas", [0.5, 0.9], {}),
    ("scheduler_type", "cosine", {}),
    ("warmup_epochs", 2, {"scheduler_type": "cosine"}),
    ("min_lr", 0.002, {"scheduler_type": "steplr", "step_size": 1, "gamma": 0.1}),
    ("step_size", 1, {}),
    ("gamma", 0.1, {"step_size": 1}),
    ("patience", 0, {"scheduler_type": "plateau", "early_stopping_min_delta": 1.0}),
    ("factor", 0.1, {"scheduler_type": "plateau", "early_stopping_min_delta": 1.0, "patience": 0}),
    ("seed", 1, {}),
    ("focal_alpha", 0.5, {"loss_type": "focal"}),
    ("focal_gamma", 0.5, {"loss_type": "focal"}),
]
FALLING_LOSS = {"early_stopping_monitor": "train_loss", "early_stopping_mode": "min"}
# Field, two values, and the other fields. The training loss falls in each epoch.
STOPPING = [
    ("num_epochs", 4, 2, {}),
    ("early_stopping_patience", 3, 1, {"early_stopping_min_delta": 1.0}),
    ("early_stopping_min_delta", 0.0, 1.0, {"early_stopping_patience": 1, **FALLING_LOSS}),
    ("early_stopping_mode", "min", "max", FALLING_LOSS),
    ("early_stopping_monitor", "train_loss", "train_char_accuracy", {"early_stopping_mode": "max"}),
]
TESTED_ELSEWHERE = {
    "device": "test_device.py",
    "mixed_precision": "test_loop.py, if the processor supports it",
    "vocab_size": "tests/tuner/models/test_network.py",
    "max_sequence_length": "tests/tuner/models/test_network.py",
    "num_workers": "tests/tuner/data/test_batches.py",
    "pin_memory": "tests/tuner/data/test_batches.py",
    "experiment_name": "tests/tuner/session/test_objective.py: the folder",
    "output_dir": "tests/tuner/session/test_objective.py: the folder",
    "threads": "test_threads.py",
}


@pytest.fixture(scope="module")
def results():
    """Results keyed by configuration, because many fields are compared with the same result."""
    return {}


def result_of(config, run, folder, results):
    """Return a result without its measured times: losses and rates of all epochs, and the last weights."""
    if str(config) not in results:
        result = run(config, folder)
        numbers = [(epoch.train_loss, epoch.val_loss, epoch.learning_rate) for epoch in result.history]
        weights = load_checkpoint(folder / "checkpoints" / "last.pt")["model"].values()
        results[str(config)] = (
            result.why_ended,
            result.best_epoch,
            numbers,
            [tensor.sum().item() for tensor in weights],
        )
    return results[str(config)]


@pytest.mark.parametrize(("field", "value", "others"), RESULT, ids=[field for field, _, _ in RESULT])
def test_field_changes_the_trained_weights(field, value, others, tiny_config, run, tmp_path, results):
    common = {"num_epochs": 3, "batch_size": 16} | others
    base = common | ({"model_name": "tiny", "loss_type": "crossentropy"} if field == "model_name" else {})
    plain = result_of(tiny_config(**base), run, tmp_path / "plain", results)
    changed = result_of(tiny_config(**common | {field: value}), run, tmp_path / "changed", results)
    assert plain != changed


@pytest.mark.parametrize(("field", "plain", "changed", "others"), STOPPING, ids=[field for field, *_ in STOPPING])
def test_field_changes_the_best_or_the_last_epoch(field, plain, changed, others, tiny_config, run, tmp_path):
    common = {"num_epochs": 4, "learning_rate": 0.01, "augmentation": False} | others
    ends = set()
    for value in (plain, changed):
        result = run(tiny_config(**common | {field: value}), tmp_path / str(value))
        ends.add((result.best_epoch, len(result.history)))
    assert len(ends) == 2


def test_metadata_path_selects_the_dataset(tiny_config, run, tmp_path):
    other = generate_dataset(tmp_path / "generated_data", samples=20, test_samples=1, seed=5)
    plain = run(tiny_config(num_epochs=1), tmp_path / "plain")
    changed = run(tiny_config(num_epochs=1, metadata_path=str(other)), tmp_path / "changed")
    assert plain.history[0].val_loss != changed.history[0].val_loss


def test_model_config_path_selects_the_model_definitions(tiny_config, run, tmp_path):
    wider = tmp_path / "wider.yaml"
    wider.write_text(Path(tiny_config().model_config_path).read_text().replace("width: 16", "width: 20"))
    plain = run(tiny_config(num_epochs=1), tmp_path / "plain")
    changed = run(tiny_config(num_epochs=1, model_config_path=str(wider)), tmp_path / "changed")
    assert changed.parameters > plain.parameters


def test_snapshot_fields_set_their_interval_and_number(tiny_config, run, tmp_path):
    run(tiny_config(num_epochs=5, save_every_n_epochs=2, keep_n_checkpoints=5), tmp_path / "all")
    run(tiny_config(num_epochs=5, save_every_n_epochs=1, keep_n_checkpoints=2), tmp_path / "newest")
    found = {
        name: sorted(path.name for path in tmp_path.glob(f"{name}/checkpoints/epoch_*")) for name in ("all", "newest")
    }
    assert found == {"all": ["epoch_0002.pt", "epoch_0004.pt"], "newest": ["epoch_0004.pt", "epoch_0005.pt"]}


def test_every_field_is_tested():
    own_tests = {
        "metadata_path",
        "model_config_path",
        "save_every_n_epochs",
        "keep_n_checkpoints",
        "use_tensorboard",  # test_recorder.py
        "log_every_n_steps",  # test_recorder.py
    }
    in_tables = {row[0] for row in (*RESULT, *STOPPING)}
    assert in_tables | own_tests | TESTED_ELSEWHERE.keys() == {field.name for field in fields(TrainingConfig)}
