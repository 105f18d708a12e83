import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from search_spaces import TrainingConfig
from tuner.training.checkpoints import (
    CheckpointFolder,
    DamagedCheckpointError,
    load_checkpoint,
    save_checkpoint,
)

STATE = {
    "weights": torch.arange(6.0),
    "history": [{"epoch": 1, "loss": 0.25}],
    "name": "ខ្មែរ",
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoints" / "last.pt"


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", TrainingConfig(save_every_n_epochs=2, keep_n_checkpoints=2))


def names(folder):
    return sorted(file.name for file in folder.path.iterdir())


def test_loaded_checkpoint_equals_the_saved_state(path):
    save_checkpoint(path, STATE)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.pop("weights"), STATE["weights"])
    assert loaded == {name: value for name, value in STATE.items() if name != "weights"}


def test_torch_load_can_read_a_checkpoint(path):
    save_checkpoint(path, STATE)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], STATE["weights"])


def test_flipped_bit_at_any_position_is_detected(path):
    save_checkpoint(path, STATE)
    good = path.read_bytes()
    # The whole end (the zip's directory, the comment's length and the digest), and a sample of the rest.
    for position in [*range(0, len(good) - 200, 97), *range(len(good) - 200, len(good))]:
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        path.write_bytes(bad)
        with pytest.raises(DamagedCheckpointError, match=r"last\.pt"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda content, length=length: content[:length] for length in (0, 1, 65, 66, 500, -1)),
        *(lambda content, start=start: content[:start] + bytes(len(content) - start) for start in (0, 66, 500)),
        lambda content: content[1:],
        lambda content: content + b"\0",
        lambda content: content * 2,
    ],
)
def test_truncated_zeroed_or_extended_checkpoint_is_detected(path, damage):
    save_checkpoint(path, STATE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedCheckpointError):
        load_checkpoint(path)


def test_file_of_another_program_is_rejected(path):
    path.parent.mkdir()
    torch.save(STATE, path)
    with pytest.raises(DamagedCheckpointError, match="not written by khmer-tuner"):
        load_checkpoint(path)


def test_error_while_saving_keeps_the_old_checkpoint_and_no_temporary_file(path):
    save_checkpoint(path, STATE)
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"weights": torch.zeros(3), "cannot be saved": lambda: None})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_full_disk_while_saving_keeps_the_old_checkpoint_and_no_temporary_file(path):
    save_checkpoint(path, STATE)
    script = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from tuner.training.checkpoints import save_checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "save_checkpoint(Path(sys.argv[1]), {'weights': torch.zeros(100_000)})\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert "OSError" in ended.stderr
    assert torch.equal(load_checkpoint(path)["weights"], STATE["weights"])
    assert list(path.parent.iterdir()) == [path]


def test_kill_while_saving_leaves_a_complete_checkpoint(path):
    script = (
        "import itertools, sys, torch; from pathlib import Path\n"
        "from tuner.training.checkpoints import save_checkpoint\n"
        "for number in itertools.count():\n"
        "    save_checkpoint(Path(sys.argv[1]), {'number': number, 'weights': torch.full((300_000,), float(number))})\n"
        "    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 5:
            pass
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
    acknowledged = max(map(int, rest), default=5)
    state = load_checkpoint(path)
    assert state["number"] >= acknowledged
    assert torch.equal(state["weights"], torch.full((300_000,), float(state["number"])))
    # The next save overwrites the temporary file of the killed process.
    save_checkpoint(path, STATE)
    assert list(path.parent.iterdir()) == [path]


def test_folder_keeps_the_last_two_epochs_and_the_newest_snapshots(folder):
    for epoch in range(1, 8):
        folder.save_epoch(epoch, {"epoch": epoch})
    assert names(folder) == ["epoch_0004.pt", "epoch_0006.pt", "last.pt", "previous.pt"]
    state = folder.load_last()
    assert state is not None
    assert state["epoch"] == 7
    assert load_checkpoint(folder.path / "previous.pt")["epoch"] == 6
    assert load_checkpoint(folder.path / "epoch_0004.pt")["epoch"] == 4


def test_finished_training_keeps_only_best_checkpoint_and_snapshots(folder):
    save_checkpoint(folder.best, STATE)
    for epoch in (1, 2):
        folder.save_epoch(epoch, {"epoch": epoch})
    folder.delete_resume_files()
    assert names(folder) == ["best.pt", "epoch_0002.pt"]
    assert folder.load_last() is None


def test_deleting_checkpoints_of_a_missing_folder_creates_nothing(folder):
    folder.delete_resume_files()
    folder.clear()
    assert folder.load_last() is None
    assert not folder.path.exists()


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_last_checkpoint_falls_back_to_previous_with_a_warning(folder, caplog):
    for epoch in (1, 2, 3):
        folder.save_epoch(epoch, {"epoch": epoch})
    damage(folder.path / "last.pt")
    state = folder.load_last()
    assert state is not None
    assert state["epoch"] == 2
    assert "last.pt" in caplog.text
    assert "resuming one epoch earlier" in caplog.text
    # The next epoch must not replace the intact `previous` with the damaged checkpoint.
    folder.save_epoch(3, {"epoch": 3})
    assert load_checkpoint(folder.path / "previous.pt")["epoch"] == 2


def test_kill_between_the_two_renames_falls_back_to_previous(folder):
    for epoch in (1, 2):
        folder.save_epoch(epoch, {"epoch": epoch})
    shutil.move(folder.path / "last.pt", folder.path / "previous.pt")
    state = folder.load_last()
    assert state is not None
    assert state["epoch"] == 2
