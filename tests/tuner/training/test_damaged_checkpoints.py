"""Damaged, exchanged and malicious checkpoints of a real training are detected and not loaded."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from tuner.training.checkpoints import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def uninterrupted(tiny_config, run, tmp_path_factory):
    """The result of a training of three epochs."""
    return run(tiny_config(num_epochs=3), tmp_path_factory.mktemp("uninterrupted"))


@pytest.fixture(scope="module")
def _interrupted(tiny_config, interrupt, tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    interrupt(tiny_config(num_epochs=3), folder, after_epoch=2)
    return folder


@pytest.fixture
def interrupted(_interrupted, tmp_path):
    """The folder of this training, interrupted after the second epoch."""
    return shutil.copytree(_interrupted, tmp_path / "interrupted")


@pytest.fixture
def resume(interrupted, uninterrupted, tiny_config, run):
    """Resume the interrupted training; its result must be that of the uninterrupted training."""

    def finish():
        result = run(tiny_config(num_epochs=3), interrupted)
        assert [epoch.val_loss for epoch in result.history] == [epoch.val_loss for epoch in uninterrupted.history]
        assert (result.why_ended, result.best_epoch) == (uninterrupted.why_ended, uninterrupted.best_epoch)

    return finish


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


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, halve, os.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("names", [["last.pt"], ["last.pt", "previous.pt"]], ids=" ".join)
def test_training_with_damaged_checkpoints_gives_the_same_result(damage, names, interrupted, resume):
    for name in names:
        damage(interrupted / "checkpoints" / name)
    resume()


def of_another_network(state):
    """Return a model with the same name and settings but another definition: one layer has another shape."""
    name = next(name for name, weights in state["model"].items() if weights.dim() > 1)
    other = torch.zeros(3, *state["model"][name].shape[1:])
    return state | {"model": state["model"] | {name: other}}


FOREIGN = {
    "other settings": lambda state: state | {"config": state["config"] | {"batch_size": 16}},
    "another network": of_another_network,
    "a later version": lambda state: state | {"config": state["config"] | {"unknown_field": 1}},
    "only the model": lambda state: {name: state[name] for name in ("config", "model")},
    "unrelated": lambda state: {"weights": torch.zeros(3)},
}
WRONG = {
    "optimizer": lambda state: {"state": {}, "param_groups": []},
    "history": lambda state: [epoch | {"val_loss": "low"} for epoch in state["history"]],
    "model": lambda state: dict.fromkeys(state["model"], "heavy"),
    "early_stopping": lambda state: {"best": 1},
    "rng": lambda state: "random",
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_checkpoint_of_another_training_run_is_not_resumed_and_a_warning_is_logged(
    foreign, interrupted, resume, caplog
):
    for name in ("last.pt", "previous.pt"):
        path = interrupted / "checkpoints" / name
        save_checkpoint(path, FOREIGN[foreign](load_checkpoint(path)))
    resume()
    for name in ("last.pt", "previous.pt"):
        assert f"{name}: training cannot resume from this checkpoint: " in caplog.text
    assert "restarting at epoch 1" in caplog.text


@pytest.mark.parametrize("both", [False, True], ids=["last", "both"])
@pytest.mark.parametrize("part", WRONG)
def test_wrong_content_with_a_correct_digest_is_treated_as_damage(part, both, interrupted, resume, caplog):
    for name in ("last.pt", "previous.pt") if both else ("last.pt",):
        path = interrupted / "checkpoints" / name
        state = load_checkpoint(path)
        save_checkpoint(path, state | {part: WRONG[part](state)})
    resume()
    assert str(interrupted / "checkpoints" / "last.pt") in caplog.text
    assert "resuming one epoch earlier" in caplog.text
    assert ("restarting at epoch 1" in caplog.text) is both


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
