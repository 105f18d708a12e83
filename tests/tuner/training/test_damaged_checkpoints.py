"""Checkpoints of a real training that were damaged, exchanged or made to do harm: noticed and never obeyed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces import TrainingConfig
from tuner.training.checkpoints import DamagedCheckpointError, load_checkpoint, save_checkpoint
from tuner.training.history import TrainingResult

MakeConfig = Callable[..., TrainingConfig]
Run = Callable[..., TrainingResult]
LastState = Callable[[Path], str]

FLIPS = 1000


class Interruption(BaseException):
    """Like KeyboardInterrupt: nothing catches it."""


def interrupt(*_: object) -> None:
    raise Interruption


@pytest.fixture
def interrupted(tiny_config: MakeConfig, run: Run, tmp_path: Path) -> Path:
    """The folder of a training that was interrupted after its second epoch of three."""
    folder = tmp_path / "interrupted"
    config = tiny_config(num_epochs=3)
    with pytest.raises(Interruption):
        run(config, folder, on_epoch_end=lambda metrics, _: interrupt() if metrics.epoch == 2 else None)
    return folder


def test_out_of_memory_while_restoring_keeps_the_checkpoints(
    interrupted: Path, tiny_config: MakeConfig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    before = {path.name: path.read_bytes() for path in (interrupted / "checkpoints").iterdir()}
    monkeypatch.setattr("tuner.training.training_state.TrainingState.load_state_dict", fill)
    with pytest.raises(torch.OutOfMemoryError):
        run(tiny_config(num_epochs=3), interrupted)
    assert {path.name: path.read_bytes() for path in (interrupted / "checkpoints").iterdir()} == before


def test_restarted_training_keeps_files_of_other_programs(tiny_config: MakeConfig, run: Run, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.pt").write_bytes(b"mine")
    run(tiny_config(num_epochs=1), tmp_path)
    assert (tmp_path / "checkpoints" / "mine.pt").read_bytes() == b"mine"


def test_checkpoint_with_a_flipped_bit_is_not_loaded(interrupted: Path) -> None:
    path = interrupted / "checkpoints" / "last.pt"
    good = path.read_bytes()
    draw = random.Random(0)
    for _ in range(FLIPS):
        bad, position = bytearray(good), draw.randrange(8 * len(good))
        bad[position // 8] ^= 1 << position % 8
        path.write_bytes(bad)
        with pytest.raises(DamagedCheckpointError, match="SHA-256"):
            load_checkpoint(path)
    path.write_bytes(good)
    assert len(load_checkpoint(path)["history"]) == 2


def test_truncated_or_extended_checkpoint_is_not_loaded(interrupted: Path) -> None:
    path = interrupted / "checkpoints" / "last.pt"
    good = path.read_bytes()
    draw = random.Random(0)
    parts = [good[: draw.randrange(len(good))] for _ in range(100)]
    holes = [good[:start] + bytes(len(good) - start) for start in (draw.randrange(len(good)) for _ in range(20))]
    for bad in [*parts, *holes, good[1:], good + b"\0", good + good, bytes(len(good)), b""]:
        path.write_bytes(bad)
        with pytest.raises(DamagedCheckpointError):
            load_checkpoint(path)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, halve, os.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("names", [["last.pt"], ["last.pt", "previous.pt"]], ids=" ".join)
def test_training_with_damaged_checkpoints_gives_the_same_result(
    damage: Callable[[Path], object],
    names: list[str],
    interrupted: Path,
    tiny_config: MakeConfig,
    run: Run,
    tmp_path: Path,
) -> None:
    for name in names:
        damage(interrupted / "checkpoints" / name)
    config = tiny_config(num_epochs=3)
    result, undisturbed = run(config, interrupted), run(config, tmp_path / "undisturbed")
    assert [epoch.val_loss for epoch in result.history] == [epoch.val_loss for epoch in undisturbed.history]
    assert (result.why_ended, result.best_epoch) == (undisturbed.why_ended, undisturbed.best_epoch)


def of_other_settings(interrupted: Path, other: Path) -> Path:
    return other / "checkpoints" / "previous.pt"


def of_another_network(interrupted: Path, other: Path) -> Path:
    """A model of the same name and settings, defined otherwise: one layer has another shape."""
    path = interrupted / "checkpoints" / "last.pt"
    state = load_checkpoint(path)
    name = next(name for name, weights in state["model"].items() if weights.dim() > 1)
    state["model"][name] = torch.zeros(3, *state["model"][name].shape[1:])
    save_checkpoint(path, state)
    return path


def without_optimizer(interrupted: Path, other: Path) -> Path:
    """The best model, which holds no state of a training."""
    return interrupted / "checkpoints" / "best.pt"


def of_a_later_version(interrupted: Path, other: Path) -> Path:
    path = interrupted / "checkpoints" / "last.pt"
    state = load_checkpoint(path)
    save_checkpoint(path, state | {"config": state["config"] | {"not_known_yet": 1}})
    return path


def something_else(interrupted: Path, other: Path) -> Path:
    path = interrupted / "checkpoints" / "last.pt"
    save_checkpoint(path, {"weights": torch.zeros(3)})
    return path


@pytest.mark.parametrize(
    "foreign", [of_other_settings, of_another_network, without_optimizer, of_a_later_version, something_else]
)
def test_checkpoint_of_another_training_is_not_resumed_and_logs_a_warning(
    foreign: Callable[[Path, Path], Path],
    interrupted: Path,
    tiny_config: MakeConfig,
    run: Run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
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
    result, undisturbed = run(config, interrupted), run(config, tmp_path / "undisturbed")
    assert [epoch.val_loss for epoch in result.history] == [epoch.val_loss for epoch in undisturbed.history]
    assert "last.pt: damaged: " in caplog.text
    assert "previous.pt: damaged: " in caplog.text
    assert "restarting at epoch 1" in caplog.text


def shorter_optimizer(state: dict[str, Any]) -> dict[str, Any]:
    return {"optimizer": {"state": {}, "param_groups": []}}


def history_of_text(state: dict[str, Any]) -> dict[str, Any]:
    return {"history": [epoch | {"val_loss": "low"} for epoch in state["history"]]}


def weights_of_text(state: dict[str, Any]) -> dict[str, Any]:
    return {"model": dict.fromkeys(state["model"], "heavy")}


def early_stopping_of_others(state: dict[str, Any]) -> dict[str, Any]:
    return {"early_stopping": {"best": 1}}


def random_state_of_text(state: dict[str, Any]) -> dict[str, Any]:
    return {"rng": "random"}


@pytest.mark.parametrize("both", [False, True], ids=["last", "both"])
@pytest.mark.parametrize(
    "change", [shorter_optimizer, history_of_text, weights_of_text, early_stopping_of_others, random_state_of_text]
)
def test_wrong_content_with_a_correct_digest_is_treated_as_damage(
    change: Callable[[dict[str, Any]], dict[str, Any]],
    both: bool,
    interrupted: Path,
    tiny_config: MakeConfig,
    run: Run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("last.pt", "previous.pt") if both else ("last.pt",):
        state = load_checkpoint(interrupted / "checkpoints" / name)
        save_checkpoint(interrupted / "checkpoints" / name, state | change(state))
    config = tiny_config(num_epochs=3)
    result, undisturbed = run(config, interrupted), run(config, tmp_path / "undisturbed")
    assert [epoch.val_loss for epoch in result.history] == [epoch.val_loss for epoch in undisturbed.history]
    assert str(interrupted / "checkpoints" / "last.pt") in caplog.text
    assert "resuming one epoch earlier" in caplog.text
    assert ("restarting at epoch 1" in caplog.text) is both


def interrupt_after_two(epoch: int) -> None:
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


def test_code_in_a_checkpoint_is_not_executed_with_any_environment_variable(tmp_path: Path) -> None:
    exploded = tmp_path / "exploded"
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(tmp_path / "last.pt"), str(exploded)],
        env=os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not exploded.exists()
    # It is worth no more than a damaged one: the training begins anew.
    assert done.stdout == "None\n", done.stderr
    assert not (tmp_path / "last.pt").exists()
    assert "not written by khmer-tuner" in done.stderr


def test_link_in_place_of_a_checkpoint_is_replaced_and_not_followed(
    interrupted: Path, tiny_config: MakeConfig, run: Run, tmp_path: Path
) -> None:
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
