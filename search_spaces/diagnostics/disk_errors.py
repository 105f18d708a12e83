"""Errors of the disk that everything is written to: which they are, and what to do about them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_ROOM = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota of that disk",
}
_OTHERS = {
    errno.EFBIG: "let files grow that big there (`ulimit -f` limits them, and so do some disks)",
    errno.EROFS: "make that disk writable or choose another folder",
    errno.EACCES: "change its rights or choose another folder",
    errno.EPERM: "change its rights or choose another folder",
    errno.EIO: "check that disk",
    errno.ESTALE: "wait until that network disk is there again",
    errno.ETIMEDOUT: "wait until that network disk is there again",
    errno.ENOTCONN: "wait until that network disk is there again",
}
_REMEDIES = _NO_ROOM | _OTHERS
_MUCH_BYTES = 100_000


def is_disk_error(error: BaseException) -> bool:
    """Return whether the place that is written to fails, so that whatever else is tried there may fail as well."""
    return isinstance(error, OSError) and error.errno in _REMEDIES


def is_for_want_of_room(error: OSError) -> bool:
    """Return whether a disk or a quota is full, or a file system read-only: whatever is tried there will fail."""
    return error.errno in _NO_ROOM or error.errno == errno.EROFS


@contextmanager
def writing(path: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Let an error of the disk say which file was being written, whatever its name meanwhile, and how large it is."""
    try:
        yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        is_much = needed_bytes >= _MUCH_BYTES and error.errno in _NO_ROOM
        needed = f", {needed_bytes / 1e6:.1f} MB needed" if is_much else ""
        raise OSError(error.errno, f"{error.strerror}{needed}", os.fspath(path)) from error


def disk_error_text(error: OSError, where: str | os.PathLike[str]) -> str:
    """Say in one line where the disk fails, why, and what to do.

    Args:
        error: An error for which `is_disk_error` holds; others come without a remedy.
        where: What was written to, if the error does not say it.
    """
    path = os.fsdecode(error.filename or where)
    free = f", {_free_mb(Path(path))} MB free" if error.errno in _NO_ROOM else ""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{path}: {error.strerror or error}{free}" + (f"; {remedy}" if remedy else "")


def way_to_write(folder: Path) -> str:
    """Say what makes a folder writable that is not."""
    return "make its disk writable" if os.statvfs(folder).f_flag & os.ST_RDONLY else "change its rights"


def _free_mb(path: Path) -> int:
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free // 10**6
