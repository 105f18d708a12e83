"""Errors of the disk: which they are, and what to do about them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_SPACE = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota of that disk",
}
_REMEDIES = _NO_SPACE | {
    errno.EFBIG: "let files grow that big there (`ulimit -f` limits them, and so do some disks)",
    errno.EROFS: "make that disk writable or choose another folder",
    errno.EACCES: "change its rights or choose another folder",
    errno.EPERM: "change its rights or choose another folder",
    errno.EIO: "check that disk",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ESTALE: "wait until that network disk is there again",
    errno.ETIMEDOUT: "wait until that network disk is there again",
    errno.ENOTCONN: "wait until that network disk is there again",
    **dict.fromkeys((errno.EISDIR, errno.ENXIO, errno.EOVERFLOW), "remove it or restore the right file"),
}
_LARGE_FILE_BYTES = 100_000


def is_disk_error(error: BaseException) -> bool:
    """Return whether an error is one of the disk, so that other writes to it may fail as well."""
    return isinstance(error, OSError) and error.errno in _REMEDIES


def is_full_or_read_only(error: OSError) -> bool:
    """Return whether a disk or a quota is full, or a file system read-only: all other writes will fail too."""
    return error.errno in _NO_SPACE or error.errno == errno.EROFS


@contextmanager
def writing(path: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Add the final name of the file that is written, and its size, to an error of the disk."""
    try:
        yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        is_much = needed_bytes >= _LARGE_FILE_BYTES and error.errno in _NO_SPACE
        needed = f", {needed_bytes / 1e6:.1f} MB needed" if is_much else ""
        raise OSError(error.errno, f"{error.strerror}{needed}", os.fspath(path)) from error


def disk_error_text(error: OSError, where: str | os.PathLike[str]) -> str:
    """Return one line: where the disk fails, why, and what to do.

    Args:
        error: Any error of the operating system; only one for which `is_disk_error` holds gets a remedy.
        where: The path, if the error does not name it.
    """
    path = os.fsdecode(error.filename or where)
    free = f", {free_bytes(Path(path)) // 10**6} MB free" if error.errno in _NO_SPACE else ""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{path}: {error.strerror or error}{free}" + (f"; {remedy}" if remedy else "")


def how_to_make_writable(folder: Path) -> str:
    """Return what to do about a folder that is not writable."""
    return "make its disk writable" if os.statvfs(folder).f_flag & os.ST_RDONLY else "change its rights"


def free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of a file or folder, which may be missing."""
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(nearest).free
