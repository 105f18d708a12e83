"""Atomic file writes: readers see the complete old file or the complete new file, even if the writer is killed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from search_spaces.diagnostics.disk_errors import writing


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
