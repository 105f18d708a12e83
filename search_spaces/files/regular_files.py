"""Open and read regular files only: another program may have put a pipe, a device, a folder or a huge file there."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any

_MAX_BYTES = 2 * 10**9  # a hundred times the metadata of 100,000 samples


def regular_file(path: str | os.PathLike[str], flags: int) -> int:
    """Open a regular file, as the `opener` of `open`; anything else is an OSError whose `strerror` names its kind."""
    # O_NONBLOCK: opening a pipe would wait for a process at its other end.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.ENXIO, f"it is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}", os.fspath(path))


def read_bytes(path: str | os.PathLike[str], max_bytes: int = _MAX_BYTES) -> bytes:
    """Return the content of a regular file; OSError also if it has more than `max_bytes`."""
    with open(path, "rb", opener=regular_file) as file:
        if (size := os.fstat(file.fileno()).st_size) > max_bytes:
            raise OSError(errno.EOVERFLOW, f"it has {size:,} bytes; at most {max_bytes:,} are expected", file.name)
        return file.read()


def parse_json(text: str | bytes) -> Any:
    """Return JSON as plain data; ValueError if it is not JSON in UTF-8, or is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
