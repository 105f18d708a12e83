"""Functions that open regular files (not pipes, devices or folders), read them up to a size limit, and parse JSON."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any

_MAX_BYTES = 2 * 10**9  # a hundred times the metadata of 100,000 samples


def regular_file(path: str | os.PathLike[str], flags: int) -> int:
    """Open a regular file and return its descriptor, as the `opener` of `open` must do.

    Raises:
        OSError: The file cannot be opened, or is not a regular file; `strerror` says whether the path is a folder.
    """
    # Without O_NONBLOCK, opening a pipe would block until another process opens its other end.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.ENXIO, f"it is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}", os.fspath(path))


def read_bytes(path: str | os.PathLike[str], max_bytes: int = _MAX_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: The file cannot be read or has more than `max_bytes` bytes.
    """
    with open(path, "rb", opener=regular_file) as file:
        if (size := os.fstat(file.fileno()).st_size) > max_bytes:
            raise OSError(errno.EOVERFLOW, f"the file has {size:,} bytes; expected at most {max_bytes:,}", file.name)
        return file.read()


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: The text is not JSON in UTF-8, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
