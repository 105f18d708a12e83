from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.data.image_paths import ImagePaths


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Files in two folders, in turn."""
    paths = [tmp_path / folder / f"{number}.png" for number in range(3) for folder in ("a", "ខ្មែរ")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"picture")
    return [str(path) for path in paths]


def test_are_the_paths_that_they_were_made_of(files: list[str]) -> None:
    paths = ImagePaths.of(files)
    assert list(paths) == files
    assert paths[-1] == files[-1]
    assert paths[1:4] == files[1:4]
    with pytest.raises(IndexError):
        paths[len(files)]


def test_a_description_holds_in_another_place(files: list[str], tmp_path: Path) -> None:
    description = ImagePaths.of(files).description(tmp_path)
    moved = ImagePaths.from_description(description, Path("/elsewhere"))
    assert list(moved) == [path.replace(str(tmp_path), "/elsewhere") for path in files]


def _touch(path: Path) -> None:
    os.utime(path, ns=(0, 12345))


def _remove_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("gone"))


@pytest.mark.parametrize(
    "change", [_touch, Path.unlink, _remove_folder, lambda path: path.write_bytes(b"other picture")]
)
def test_the_digest_of_states_tells_a_changed_file(files: list[str], change: Callable[[Path], object]) -> None:
    paths = ImagePaths.of(files)
    before = paths.states_digest()
    assert paths.states_digest() == before
    change(Path(files[3]))
    assert paths.states_digest() != before
