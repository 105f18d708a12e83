"""Damaged, exchanged and malicious checkpoints of a real training are detected and not loaded."""

import os
import random
import shutil
import subprocess
import sys

import pytest
import torch

from tuner.training.checkpoints import DamagedCheckpointError, load_checkpoint, save_checkpoint

FLIPS = 1000


class Interruption(BaseException):
    """Like KeyboardInterrupt, not an `Exception`."""


def interrupt(*_):
    raise Interruption


@pytest.fixture
def interrupted(tiny_config, run, tmp_path):
    """Return the folder of a training run that was interrupted after the second of three epochs."""
    folder = tmp_path / "interrupted"
    config = tiny_config(num_epochs=3)
    with pytest.raises(Interruption):
        run(config, folder, on_epoch_end=lambda metrics, _: interrupt() if metrics.epoch == 2 else None)
    return folder


def test_out_of_memory_while_restoring_keeps_the_checkpoints(interrupted, tiny_config, run, monkeypatch):
    def run_out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    before = {path.name: path.read_bytes() for path in (interrupted / "checkpoints").iterdir()}
    monkeypatch.setattr("tuner.training.training_state.TrainingState.load_state_dict", run_out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        run(tiny_config(num_epochs=3), interrupted)
    assert {path.name: path.read_bytes() for path in (interrupted / "checkpoints").iterdir()} == before


def test_restarted_training_keeps_files_of_other_programs(tiny_config, run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.pt").write_bytes(b"mine")
    run(tiny_config(num_epochs=1), tmp_path)
    assert (tmp_path / "checkpoints" / "mine.pt").read_bytes() == b"mine"


def test_checkpoint_with_a_flipped_bit_is_not_loaded(interrupted):
    path = interrupted / "checkpoints" / "last.pt"
    intact = path.read_bytes()
    rng = random.Random(0)
    for _ in range(FLIPS):
        damaged, position = bytearray(intact), rng.randrange(8 * len(intact))
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedCheckpointError, match="SHA-256"):
            load_checkpoint(path)
    path.write_bytes(intact)
    assert len(load_checkpoint(path)["history"]) == 2


def test_truncated_or_extended_checkpoint_is_not_loaded(interrupted):
    path = interrupted / "checkpoints" / "last.pt"
    intact = path.read_bytes()
    rng = random.Random(0)
    parts = [intact[: rng.randrange(len(intact))] for _ in range(100)]
    holes = [intact[:start] + bytes(len(intact) - start) for start in (rng.randrange(len(intact)) for _ in range(20))]
    for damaged in [*parts, *holes, intact[1:], intact + b"\0", intact + intact, bytes(len(intact)), b""]:
        path.write_bytes(damaged)
        with pytest.raises(DamagedCheckpointError):
            load_checkpoint(path)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, halve, os.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("names", [["last.pt"], ["last.pt", "previous.pt"]], ids=" ".join)
def test_training_with_damaged_checkpoints_gives_the_same_result(
    damage, names, interrupted, tiny_config, run, tmp_path
):
    for name in names:
        damage(interrupted / "checkpoints" / name)
    config = tiny_config(num_epochs=3)
    result, uninterrupted = run(config, interrupted), run(config, tmp_path / "uninterrupted")
    assert [epoch.val_loss for epoch in result.history] == [epoch.val_loss for epoch in uninterrupted.history]
    assert (result.why_ended, result.best_epoch) == (uninterrupted.why_ended, uninterrupted.best_epoch)


def with_other_settings(interrupted, other):
    return other / "checkpoints" / "previous.pt"


def of_another_network(interrupted, other):
    """A model with the same name and settings but another definition: one layer has another shape."""
    path = interrupted / "checkpoints" / "last.pt"
    state = load_checkpoint(path)
    name = next(name for name, weights in state["model"].items() if weights.dim() > 1)
    state["model"][name] = torch.zeros(3, *state["model"][name].shape[1:])
    save_checkpoint(path, state)
    return path


def without_optimizer(interrupted, other):
    """The best checkpoint, which has no training state."""
    return interrupted / "checkpoints" / "best.pt"


def of_a_later_version(interrupted, other):
    path = interrupted / "checkpoints" / "last.pt"
    state = load_checkpoint(path)
    save_checkpoint(path, state | {"config": state["config"] | {"unknown_field": 1}})
    return path


def unrelated_state(interrupted, other):
    path = interrupted / "checkpoints" / "last.pt"
    save_checkpoint(path, {"weights": torch.zeros(3)})
    return path


@pytest.mark.parametrize(
    "foreign", [with_other_settings, of_another_network, without_optimizer, of_a_later_version, unrelated_state]
)
def test_checkpoint_of_another_training_run_is_not_resumed_and_a_warning_is_logged(
    foreign, interrupted, tiny_config, run, tmp_path, caplog
):
    other = tmp_path / "other"
    with pytest.raises(Interruption):
        run(
            tiny_config(num_epochs=3, batch_size=16),
            other,
            on_epoch_end=lambda metrics, _: interrupt_after_two(metrics.epoch),
        )
    content = foreign(interrupted, other).read_bytes()
    for name in ("last.pt", "previous.pt"):
        (interrupted / "checkpoints" / name).write_bytes(content)
    config = tiny_config(num_epochs=3)
    result, uninterrupted = run(config, interrupted), run(config, tmp_path / "uninterrupted")
    assert [epoch.val_loss for epoch in result.history] == [epoch.val_loss for epoch in uninterrupted.history]
    assert "last.pt: training cannot resume from this checkpoint: " in caplog.text
    assert "previous.pt: training cannot resume from this checkpoint: " in caplog.text
    assert "restarting at epoch 1" in caplog.text


def empty_optimizer(state):
    return {"optimizer": {"state": {}, "param_groups": []}}


def text_in_history(state):
    return {"history": [epoch | {"val_loss": "low"} for epoch in state["history"]]}


def text_as_weights(state):
    return {"model": dict.fromkeys(state["model"], "heavy")}


def incomplete_early_stopping(state):
    return {"early_stopping": {"best": 1}}


def text_as_random_state(state):
    return {"rng": "random"}


@pytest.mark.parametrize("both", [False, True], ids=["last", "both"])
@pytest.mark.parametrize(
    "change", [empty_optimizer, text_in_history, text_as_weights, incomplete_early_stopping, text_as_random_state]
)
def test_wrong_content_with_a_correct_digest_is_treated_as_damage(
    change, both, interrupted, tiny_config, run, tmp_path, caplog
):
    for name in ("last.pt", "previous.pt") if both else ("last.pt",):
        state = load_checkpoint(interrupted / "checkpoints" / name)
        save_checkpoint(interrupted / "checkpoints" / name, state | change(state))
    config = tiny_config(num_epochs=3)
    result, uninterrupted = run(config, interrupted), run(config, tmp_path / "uninterrupted")
    assert [epoch.val_loss for epoch in result.history] == [epoch.val_loss for epoch in uninterrupted.history]
    assert str(interrupted / "checkpoints" / "last.pt") in caplog.text
    assert "resuming one epoch earlier" in caplog.text
    assert ("restarting at epoch 1" in caplog.text) is both


def interrupt_after_two(epoch):
    if epoch == 2:
        raise Interruption


BOMB = """
import io, os, sys, torch
from pathlib import Path
from search_spaces import TrainingConfig
from tuner.training.checkpoints import _with_digest, CheckpointFolder

class Bomb:
    def __reduce__(self):
        return Path.touch, (Path(sys.argv[2]),)

path = Path(sys.argv[1])
buffer = io.BytesIO()
torch.save({"config": Bomb(), "history": []}, buffer)
path.write_bytes(_with_digest(buffer.getvalue()))
print(CheckpointFolder(path.parent, TrainingConfig()).load_last())
"""


def test_code_in_a_checkpoint_is_not_executed_with_any_environment_variable(tmp_path):
    exploded = tmp_path / "exploded"
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(tmp_path / "last.pt"), str(exploded)],
        env=os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not exploded.exists()
    # The file is treated as damaged, so the training restarts.
    assert done.stdout == "None\n", done.stderr
    assert not (tmp_path / "last.pt").exists()
    assert "not written by khmer-tuner" in done.stderr


def test_symbolic_link_in_place_of_a_checkpoint_is_replaced_and_not_followed(interrupted, tiny_config, run, tmp_path):
    outside = tmp_path / "outside.pt"
    outside.write_text("precious")
    checkpoints = interrupted / "checkpoints"
    shutil.move(checkpoints / "last.pt", tmp_path / "kept.pt")
    for name in ("last.pt", "previous.pt", "best.pt", ".last.pt.tmp", ".best.pt.tmp"):
        (checkpoints / name).unlink(missing_ok=True)
        (checkpoints / name).symlink_to(outside)
    assert run(tiny_config(num_epochs=3), interrupted).why_ended == "max_epochs"
    assert outside.read_text() == "precious"
    assert not any(path.is_symlink() for path in checkpoints.iterdir())
