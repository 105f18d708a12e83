from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from studies import OutputFolder
from studies.status.disk_usage import disk_usage

Start = Callable[..., tuple[optuna.Study, OutputFolder]]


def fill(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def size_of_all(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def test_room_is_counted_by_what_it_is_taken_for(start: Start) -> None:
    _, folder = start()
    fill(folder.path / "ខ្មែរ" / "checkpoints" / "best.pt", 5000)
    fill(folder.path / "search_0001" / "checkpoints" / "last.pt", 700)
    fill(folder.path / "search_0001" / "tensorboard" / "steps" / "events", 60)
    fill(folder.path / "search_0001" / "logs" / "training.log", 9)
    fill(folder.path / "artifacts" / "checkpoints" / "a.png", 300)
    before = disk_usage(folder)
    assert (before.checkpoints, before.tensorboard, before.logs, before.artifacts) == (5700, 60, 9, 300)
    assert before.database == (folder.path / "study.db").stat().st_size
    assert before.used == size_of_all(folder.path)
    fill(folder.path / "search_0001" / "metrics.jsonl", 20)
    fill(folder.path / "checkpoints" / "my own notes", 1)  # of no trial
    fill(folder.path / "study.db-journal", 4)
    after = disk_usage(folder)
    assert (after.other - before.other, after.database - before.database) == (21, 4)
    assert after.used == size_of_all(folder.path)


def test_a_database_elsewhere_counts_and_what_links_lead_to_does_not(start: Start, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    _, folder = start(path=tmp_path / "out", url=url)
    fill(tmp_path / "big" / "checkpoints" / "best.pt", 100_000)
    (folder.path / "linked").symlink_to(tmp_path / "big")
    use = disk_usage(folder)
    assert use.database == (tmp_path / "elsewhere.db").stat().st_size
    assert use.checkpoints == 0
    assert use.used - use.database == size_of_all(folder.path)


def test_a_folder_that_is_not_there_yet_takes_nothing(tmp_path: Path) -> None:
    use = disk_usage(OutputFolder(tmp_path / "not" / "there"))
    assert use.used == 0
    assert use.free > 0
    assert not (tmp_path / "not").exists()


def test_what_is_free_is_told_of_the_folders_disk(start: Start) -> None:
    _, folder = start()
    stat = os.statvfs(folder.path)
    assert disk_usage(folder).free == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.05)


def test_a_folder_that_is_not_ours_to_read_does_not_count(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = start()
    (folder.path / "lost+found").mkdir()
    (folder.path / "lost+found" / "file").write_bytes(bytes(1000))
    before, scandir = disk_usage(folder), os.scandir

    def refusing(path: str) -> Any:
        if path.endswith("lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert before.other - disk_usage(folder).other == 1000


def test_files_that_go_away_meanwhile_do_not_matter(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = start()
    gone = folder.path / "one" / "checkpoints" / "last.pt"
    fill(gone, 100)
    fill(folder.path / "two" / "checkpoints" / "last.pt", 7)
    scandir = os.scandir

    def lose_one(path: str) -> object:
        entries = list(scandir(path))
        if str(path) == str(gone.parent):
            gone.unlink()
            gone.parent.rmdir()
        return iter(entries)

    monkeypatch.setattr(os, "scandir", lose_one)
    assert disk_usage(folder).checkpoints == 7
