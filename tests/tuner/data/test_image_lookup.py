import os
from pathlib import Path

import pytest

from tuner.data.image_lookup import states_digest


@pytest.fixture
def files(tmp_path):
    """Paths of files, alternating between two folders."""
    paths = [tmp_path / folder / f"{number}.png" for number in range(3) for folder in ("a", "ខ្មែរ")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"image")
    return [str(path) for path in paths]


def _touch(path):
    os.utime(path, ns=(0, 12345))


def _remove_folder(path):
    path.parent.rename(path.parent.with_name("gone"))


@pytest.mark.parametrize("change", [_touch, Path.unlink, _remove_folder, lambda path: path.write_bytes(b"other image")])
def test_states_digest_changes_with_a_file(files, change):
    before = states_digest(files)
    assert states_digest(files) == before
    change(Path(files[3]))
    assert states_digest(files) != before
