"""Telling a disk that takes nothing any more from other errors of files."""

from __future__ import annotations

import errno


def is_for_want_of_room(error: OSError) -> bool:
    """Return whether a disk or a quota is full, or a file system read-only: whatever is tried there will fail."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
