"""Symbolic links in the output folder: nothing outside the folder is written, removed or created."""

import pytest

from search_spaces import ConfigurationError
from search_spaces.files.file_locks import try_lock
from studies import OutputFolder, default_storage_url


@pytest.fixture
def folder(tmp_path):
    """A folder that a study has claimed."""
    folder = OutputFolder(tmp_path / "out")
    folder.claim("khmer-ocr", default_storage_url(folder.path))
    return folder


@pytest.fixture
def outside(tmp_path):
    """A folder outside the output folder, with a file that must not change."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "precious").write_text("precious")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "artifacts",
        "study.db",
        "study.db-journal",
        ".study/study.lock",
        ".study/unfinished.db",
        ".study/database.lock",
        ".study/model_config.yaml",
        ".study/leases",
        ".study/leases/0003.lock",
    ],
)
@pytest.mark.parametrize("target", ["outside", "outside/precious", "outside/new"])
def test_link_to_a_target_outside_is_refused_before_any_write(name, target, folder, outside, tmp_path):
    link = folder.path / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / target)
    with pytest.raises(ConfigurationError) as caught:
        folder.claim("khmer-ocr", default_storage_url(folder.path))
    assert str(caught.value) == (
        f"output folder {folder.path}: {link} is a symbolic link to {tmp_path / target}, outside this folder; "
        "remove the link, or replace it with its target"
    )
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious": "precious"}


@pytest.mark.parametrize("name", ["", "checkpoints", "logs/training.log", "metrics.jsonl", "tensorboard", "a/b/c"])
def test_trial_folder_with_a_link_to_a_target_outside_is_refused(name, folder, outside):
    link = folder.path / "one" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(ConfigurationError, match=r"is a symbolic link to .*outside, outside this folder; remove"):
        folder.trial_dir_for_work("one")
    assert not folder.contains(link)


@pytest.mark.parametrize("relative", [True, False])
def test_links_inside_the_folder_and_to_the_folder_are_accepted(relative, folder, tmp_path):
    (folder.path / "big").mkdir()
    (folder.path / "one").mkdir()
    (folder.path / "one" / "checkpoints").symlink_to("../big" if relative else folder.path / "big")
    (tmp_path / "link").symlink_to(folder.path)
    for output_folder in (folder, OutputFolder(tmp_path / "link")):
        output_folder.check("khmer-ocr", default_storage_url(folder.path))
        assert output_folder.trial_dir_for_work("one") == output_folder.path / "one"
        assert output_folder.contains(output_folder.path / "one" / "checkpoints")


def test_unrelated_links_in_the_folder_are_ignored(folder, outside):
    (folder.path / "my notes").symlink_to(outside)
    folder.check("khmer-ocr", default_storage_url(folder.path))
    assert folder.trial_dir_for_work("one") == folder.path / "one"


@pytest.mark.parametrize("exists", [True, False])
def test_lock_file_that_is_a_link_is_refused(exists, tmp_path, outside):
    target = outside / ("precious" if exists else "new")
    (tmp_path / "0001.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        try_lock(tmp_path / "0001.lock")
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious": "precious"}
