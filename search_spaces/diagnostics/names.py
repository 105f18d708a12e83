"""Rules for the names of experiments and studies, and for the paths of files that are written."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

_MAX_CHARACTERS = 64
# 64 Khmer characters are 192 bytes; file systems allow 255, and suffixes such as ".lock" are added.
_MAX_BYTES = 200
_MAX_PART_BYTES = 255
# Linux allows 4,096 and macOS 1,024; the study adds subfolders and file names.
_MAX_PATH_BYTES = 900
_PUNCTUATION = "_-. "
ANY_SEARCH_TRIAL = "search_NNNN"  # placeholder in messages for the name of a search trial
_SEARCH_TRIAL = re.compile(r"search_[0-9]{4,}")
_RESERVED_STARTS = ("study.db", ".study")
_RESERVED = ("artifacts", ".", "..")


def name_problem(name: object) -> str | None:
    """Check the name of an experiment or a study.

    A valid name has 1 to 64 letters, marks and digits of any script, ``_``, ``-``, ``.`` and spaces, in Unicode's
    composed form (NFC). Names of files in the output folder and names of search trials are reserved.

    Args:
        name: The name; a value that is not text is invalid.

    Returns:
        The violated rule and the remedy; None if the name is valid.
    """
    if not isinstance(name, str):
        example = f": '{name}'" if type(name) is int else ""
        return f"found a name that is not text; put the name in quotes{example}"
    return _length_problem(name) or _character_problem(name) or _reserved_problem(name)


def search_trial_name(number: int) -> str:
    """Return the name of a search trial, which is also the name of its folder."""
    return f"search_{number:04d}"


def is_search_trial_name(name: str) -> bool:
    """Return whether `search_trial_name` returns this name for some number: ``search_`` and four or more digits."""
    return _SEARCH_TRIAL.fullmatch(name) is not None


def path_problem(path: Path) -> str | None:
    """Return why no file can have this path, without accessing the disk; None if the path is valid."""
    control = next((char for char in str(path) if unicodedata.category(char) == "Cc"), None)
    if control is not None:
        return f"found the character {control!a} in the path, which a name must not contain"
    if any(len(os.fsencode(part)) > _MAX_PART_BYTES for part in path.parts):
        return f"the name of a file or folder has at most {_MAX_PART_BYTES} bytes"
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        return f"a path has at most {_MAX_PATH_BYTES} bytes"
    return None


def _length_problem(name: str) -> str | None:
    if not name:
        return "a name has 1 to 64 characters; choose a name"
    if len(name) > _MAX_CHARACTERS:
        return f"a name has at most 64 characters, but this name has {len(name)}; choose a shorter name"
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > _MAX_BYTES:
        return f"a name has at most {_MAX_BYTES} bytes as UTF-8, but this name has {size}; choose a shorter name"
    return None


def _character_problem(name: str) -> str | None:
    bad = dict.fromkeys(char for char in name if not _is_allowed(char))
    if bad:
        shown = " ".join(ascii(char) if not char.isprintable() else repr(char) for char in bad)
        return (
            "a name has only letters, marks and digits of any script, '_', '-', '.' and space; "
            f"remove {shown} or use '_' instead"
        )
    if unicodedata.normalize("NFC", name) != name:
        composed = unicodedata.normalize("NFC", name)
        return f"a name is in Unicode's composed form (NFC); use {composed!r} ({len(composed)} characters)"
    if name != name.strip(" "):
        return "a name must not start or end with a space; remove the space"
    if name.startswith("-"):
        return "a name that starts with '-' looks like a command-line option; start with a letter or digit"
    return None


def _is_allowed(char: str) -> bool:
    return char in _PUNCTUATION or unicodedata.category(char)[0] in "LMN"


def _reserved_problem(name: str) -> str | None:
    # macOS and some network file systems ignore case.
    folded = name.casefold()
    if folded in _RESERVED or folded.startswith(_RESERVED_STARTS):
        return "this name is reserved for the output folder's own files; choose another name"
    if is_search_trial_name(folded):
        return "search trials are named search_0000, search_0001 and so on; choose another name"
    return None
