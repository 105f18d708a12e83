import os

import pytest

from studies import OutputFolder
from studies.status.disk_usage import disk_usage


def fill(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def size_of_all(folder):
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def test_disk_usage_is_counted_per_kind_of_file(start):
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
    fill(folder.path / "checkpoints" / "my own notes", 1)  # not in a trial's folder
    fill(folder.path / "study.db-journal", 4)
    after = disk_usage(folder)
    assert (after.other - before.other, after.database - before.database) == (21, 4)
    assert after.used == size_of_all(folder.path)


def test_database_outside_the_folder_counts_and_link_targets_do_not(start, tmp_path):
    url = f"sqlite:///{tmp_path}/other.db"
    _, folder = start(path=tmp_path / "out", url=url)
    fill(tmp_path / "big" / "checkpoints" / "best.pt", 100_000)
    (folder.path / "linked").symlink_to(tmp_path / "big")
    usage = disk_usage(folder)
    assert usage.database == (tmp_path / "other.db").stat().st_size
    assert usage.checkpoints == 0
    assert usage.used - usage.database == size_of_all(folder.path)


def test_missing_folder_uses_no_space_and_is_not_created(tmp_path):
    usage = disk_usage(OutputFolder(tmp_path / "missing" / "folder"))
    assert usage.used == 0
    assert usage.free > 0
    assert not (tmp_path / "missing").exists()


def test_free_space_is_that_of_the_folders_disk(start):
    _, folder = start()
    stat = os.statvfs(folder.path)
    assert disk_usage(folder).free == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.05)


def test_unreadable_folder_does_not_count(start, monkeypatch):
    _, folder = start()
    (folder.path / "lost+found").mkdir()
    (folder.path / "lost+found" / "file").write_bytes(bytes(1000))
    before, scandir = disk_usage(folder), os.scandir

    def scandir_with_error(path):
        if path.endswith("lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scandir_with_error)
    assert before.other - disk_usage(folder).other == 1000


def test_files_removed_meanwhile_do_not_count(start, monkeypatch):
    _, folder = start()
    removed = folder.path / "one" / "checkpoints" / "last.pt"
    fill(removed, 100)
    fill(folder.path / "two" / "checkpoints" / "last.pt", 7)
    scandir = os.scandir

    def scandir_and_remove(path):
        entries = list(scandir(path))
        if str(path) == str(removed.parent):
            removed.unlink()
            removed.parent.rmdir()
        return iter(entries)

    monkeypatch.setattr(os, "scandir", scandir_and_remove)
    assert disk_usage(folder).checkpoints == 7
