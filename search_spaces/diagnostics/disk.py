"""Disk errors with their remedies, and atomic file writes, after which readers see the old or the new file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NO_SPACE = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "delete some of your files on that disk, or raise your disk quota",
}
_REMEDIES = _NO_SPACE | {
    errno.EFBIG: "raise the file size limit of the process (`ulimit -f`), or use a disk that supports larger files",
    errno.EROFS: "make that disk writable or choose another folder",
    errno.EACCES: "change the permissions or choose another folder",
    errno.EPERM: "change the permissions or choose another folder",
    errno.EIO: "check that disk",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.ESTALE: "wait until that network disk is available again",
    errno.ETIMEDOUT: "wait until that network disk is available again",
    errno.ENOTCONN: "wait until that network disk is available again",
    **dict.fromkeys((errno.EISDIR, errno.ENXIO, errno.EOVERFLOW), "remove it or restore the original file"),
}
_LARGE_FILE_BYTES = 100_000


def is_disk_error(error: BaseException) -> bool:
    """Return whether an error comes from the disk, so that other writes to the disk may fail too."""
    return isinstance(error, OSError) and error.errno in _REMEDIES


def is_full_or_read_only(error: OSError) -> bool:
    """Return whether all other writes to the disk fail too: disk or quota are full, or the file system is read-only."""
    return error.errno in _NO_SPACE or error.errno == errno.EROFS


@contextmanager
def writing(path: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Add the path, and the size of a large file, to disk errors in the ``with`` block that writes the file."""
    try:
        yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        is_large = needed_bytes >= _LARGE_FILE_BYTES and error.errno in _NO_SPACE
        needed = f", {needed_bytes / 1e6:.1f} MB needed" if is_large else ""
        raise OSError(error.errno, f"{error.strerror}{needed}", os.fspath(path)) from error


def disk_error_text(error: OSError, where: str | os.PathLike[str]) -> str:
    """Format the path, the error and the remedy in one line.

    Args:
        error: Any operating system error; only disk errors have a remedy.
        where: The path for an error without a path.
    """
    path = os.fsdecode(error.filename or where)
    free = f", {free_bytes(Path(path)) // 10**6} MB free" if error.errno in _NO_SPACE else ""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{path}: {error.strerror or error}{free}" + (f"; {remedy}" if remedy else "")


def writable_remedy(folder: Path) -> str:
    """Return the remedy for a folder that is not writable."""
    return "make its disk writable" if os.statvfs(folder).f_flag & os.ST_RDONLY else "change its permissions"


def free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of a file or folder, which need not exist."""
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(nearest).free


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically; see `write_bytes`.

    Surrogates, such as undecodable bytes of a file name, are written as escapes that JSON can read back.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes, *, temporary: Path | None = None) -> None:
    """Write a file atomically: write a hidden temporary file in the same folder, flush it to disk and rename it.

    Args:
        path: The file; its folder must exist.
        content: The new content.
        temporary: The temporary file, overwritten if it exists; None for a random name, with which several processes
            can write the file in parallel.

    Raises:
        OSError: The disk is full or the folder is read-only; the old file is unchanged.
    """
    temporary = temporary or path.with_name(f".{secrets.token_hex(8)}.tmp")
    with writing(path, len(content)):
        temporary.unlink(missing_ok=True)
        try:
            # "x" creates a new file and never follows a symbolic link; the umask determines the permissions.
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is more informative
                temporary.unlink()
            raise
        flush_to_disk(path.parent)  # so that the new name survives a power failure


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically: indented, with keys in the given order and unescaped non-ASCII letters.

    Args:
        path: The file; its folder must exist.
        data: Mappings, lists and scalars.

    Raises:
        ValueError: The data contains NaN or an infinity, which JSON does not support.
        OSError: The file cannot be written; the old file is unchanged.
    """
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def flush_to_disk(path: Path) -> None:
    """Flush a file's content or a folder's directory entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
