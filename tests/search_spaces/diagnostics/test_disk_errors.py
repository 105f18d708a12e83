from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from search_spaces.diagnostics.disk_errors import disk_error_text, is_disk_error, is_full_or_read_only, writing


def error_of(code: int, path: str | None = None) -> OSError:
    return OSError(code, os.strerror(code), path)


@pytest.mark.parametrize(
    ("code", "is_disk", "wants_room", "remedy"),
    [
        (errno.ENOSPC, True, True, "make room on that disk"),
        (errno.EDQUOT, True, True, "make room within the quota of that disk"),
        (errno.EROFS, True, True, "make that disk writable or choose another folder"),
        (errno.EIO, True, False, "check that disk"),
        (errno.EACCES, True, False, "change its rights or choose another folder"),
        (errno.ESTALE, True, False, "wait until that network disk is there again"),
        (errno.EISDIR, True, False, "remove it or restore the right file"),
        (errno.ENOENT, False, False, ""),
    ],
)
def test_an_error_says_what_to_do(code: int, is_disk: bool, wants_room: bool, remedy: str, tmp_path: Path) -> None:
    error = error_of(code, str(tmp_path / "file"))
    assert (is_disk_error(error), is_full_or_read_only(error)) == (is_disk, wants_room)
    text = disk_error_text(error, "elsewhere")
    assert text.startswith(f"{tmp_path / 'file'}: {os.strerror(code)}")
    assert text.endswith(remedy)


def test_an_error_that_names_no_file_is_told_of_the_place(tmp_path: Path) -> None:
    assert disk_error_text(error_of(errno.EIO), tmp_path).startswith(f"{tmp_path}: ")


def test_a_full_disk_says_how_much_is_free_even_for_a_file_that_was_never_there(tmp_path: Path) -> None:
    assert " MB free; make room" in disk_error_text(error_of(errno.ENOSPC, str(tmp_path / "a" / "b")), tmp_path)


def test_what_does_not_come_from_a_disk_is_no_disk_error() -> None:
    assert not is_disk_error(ValueError())
    assert not is_disk_error(OSError("without a number"))


def test_an_error_names_the_file_that_was_being_written_and_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    with pytest.raises(OSError, match=r"2\.5 MB needed") as caught, writing(path, 2_500_000):
        raise error_of(errno.ENOSPC, str(tmp_path / ".tmp"))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
