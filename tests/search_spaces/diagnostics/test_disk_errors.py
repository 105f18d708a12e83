import errno
import os

import pytest

from search_spaces.diagnostics.disk import disk_error_text, is_disk_error, is_full_or_read_only, writing


def error_of(code, path=None):
    return OSError(code, os.strerror(code), path)


@pytest.mark.parametrize(
    ("code", "is_disk", "is_full", "remedy"),
    [
        (errno.ENOSPC, True, True, "free some space on that disk"),
        (errno.EDQUOT, True, True, "delete some of your files on that disk, or raise your disk quota"),
        (errno.EROFS, True, True, "make that disk writable or choose another folder"),
        (errno.EIO, True, False, "check that disk"),
        (errno.EACCES, True, False, "change the permissions or choose another folder"),
        (errno.ESTALE, True, False, "wait until that network disk is available again"),
        (errno.EISDIR, True, False, "remove it or restore the original file"),
        (errno.ENOENT, False, False, ""),
    ],
)
def test_text_of_an_error_has_a_remedy(code, is_disk, is_full, remedy, tmp_path):
    error = error_of(code, str(tmp_path / "file"))
    assert (is_disk_error(error), is_full_or_read_only(error)) == (is_disk, is_full)
    text = disk_error_text(error, "other path")
    assert text.startswith(f"{tmp_path / 'file'}: {os.strerror(code)}")
    assert text.endswith(remedy)


def test_text_of_an_error_without_a_path_has_the_given_path(tmp_path):
    assert disk_error_text(error_of(errno.EIO), tmp_path).startswith(f"{tmp_path}: ")


def test_text_of_a_disk_full_error_has_the_free_space_even_if_the_file_is_missing(tmp_path):
    assert " MB free; free some space" in disk_error_text(error_of(errno.ENOSPC, str(tmp_path / "a" / "b")), tmp_path)


def test_other_errors_are_not_disk_errors():
    assert not is_disk_error(ValueError())
    assert not is_disk_error(OSError("without a number"))


def test_error_during_a_write_has_the_final_path_and_the_needed_space(tmp_path):
    path = tmp_path / "last.pt"
    with pytest.raises(OSError, match=r"2\.5 MB needed") as caught, writing(path, 2_500_000):
        raise error_of(errno.ENOSPC, str(tmp_path / ".tmp"))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
